"""`rekindle seeds` and `rekindle cases`: bring images in, list them, mark them."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import click

from rekindle.cli.failures import about
from rekindle.cli.files import group_keys, images_in, pairs_in
from rekindle.cli.options import RekindleGroup, pass_session
from rekindle.cli.output import counted
from rekindle.cli.session import Session
from rekindle.config import ModalityName

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)
STATES = ("registered", "ready", "leased", "labelled", "put-off", "in-review", "purged")
MARKS = ("easy", "hard", "put-off", "none")


@click.group(cls=RekindleGroup)
def seeds() -> None:
    """Labelled cases that train the first model."""


@seeds.command("add")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option(
    "--modality",
    type=click.Choice(get_args(ModalityName), case_sensitive=False),
    required=True,
    help="Modality of the images in DIR.",
)
@click.option(
    "--not-reviewed",
    multiple=True,
    metavar="ORGAN",
    help="An organ that nobody labelled in these images; repeat for more.",
)
@pass_session
def add_seeds(session: Session, folder: Path, modality: ModalityName, not_reviewed: tuple[str, ...]) -> None:
    """Add the labelled images of DIR.

    DIR has a folder images/ and a folder labels/ with files of the same names. Images are NIfTI, NRRD or MetaImage
    files or folders of DICOM files; labels may be DICOM SEG (.dcm) too.

    Adding the same files again changes nothing, so an interrupted upload is simply repeated.
    """
    pairs = pairs_in(folder)
    project = session.project()
    added: list[dict[str, str]] = []
    with session.out.progress() as bars:
        begin = bars.count("uploading labelled images", len(pairs))
        for image, label in pairs:
            begin(image.name)
            with about(image.name):
                seed = project.add_seed_case(image, label, modality=modality, not_reviewed=not_reviewed)
            added.append({"file": image.name, "seed_case_id": seed})
    session.out.done(f"{counted(len(added), f'labelled {modality} case')} of {folder} in {project.name!r} now.", added)


@seeds.command("list")
@pass_session
def list_seeds(session: Session) -> None:
    """The labelled cases of the project."""
    listed = [
        {
            "id": item.seed_case_id,
            "modality": item.modality,
            "image_volume_id": item.image_volume_id,
            "mask_volume_id": item.mask_volume_id,
        }
        for item in session.project().seed_cases()
    ]
    session.out.rows(
        "Seed cases",
        ["Id", "Modality", "Image volume"],
        [(item["id"], item["modality"], item["image_volume_id"]) for item in listed],
        listed,
    )


@click.group(cls=RekindleGroup)
def cases() -> None:
    """Your cases: add, list and mark them."""


@cases.command("add")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option(
    "--group-from",
    metavar="REGEX",
    help="Finds the patient in a file's name, so that all cases of one patient stay together: "
    "'^(P[0-9]+)' takes P017 from P017_arterial.nii.gz.",
)
@click.option("--close", is_flag=True, help="These are all: close registration afterwards.")
@pass_session
def add_cases(session: Session, folder: Path, group_from: str | None, close: bool) -> None:
    """Add the images of DIR.

    Images are NIfTI, NRRD or MetaImage files, and folders that each hold the DICOM files of a series.
    Adding the same files again changes nothing, so an interrupted upload is simply repeated.
    """
    images = images_in(folder)
    keys = group_keys(images, group_from)
    project = session.project()
    uploaded: list[str] = []
    with session.out.progress() as bars:
        begin = bars.count("uploading images", len(images))
        for image in images:
            begin(image.name)
            with about(image.name):
                uploaded.append(project.upload_image(image))
    registered = project.register_cases(zip(uploaded, keys, strict=True))
    if close:
        project.close_registration()
    ending = " Registration is closed." if close else ""
    session.out.done(
        f"{counted(len(registered), 'case')} of {folder} in {project.name!r} now.{ending}",
        [
            {"file": image.name, "case_id": case.id, "group_key": case.group_key}
            for image, case in zip(images, registered, strict=True)
        ],
    )


@cases.command("list")
@click.option(
    "--state",
    "states",
    multiple=True,
    type=click.Choice(STATES),
    metavar="STATE",
    help="Only cases in this state; repeat for more: " + ", ".join(STATES) + ".",
)
@click.option(
    "--held-out/--not-held-out",
    default=None,
    help="Only cases that are held out to measure the model, or only the others.",
)
@click.option("--round", "round_number", type=int, default=0, metavar="N", help="Only of this round.")
@click.option("--ranked", is_flag=True, help="In the order in which they are handed out.")
@pass_session
def list_cases(
    session: Session, states: tuple[str, ...], held_out: bool | None, round_number: int, ranked: bool
) -> None:
    """Cases, their state and expected minutes."""
    listed = list(session.project().cases(states=states, held_out=held_out, round=round_number, ranked=ranked))
    session.out.rows(
        counted(len(listed), "case"),
        ["Case", "State", "Mark", "Round>", "Expected min>", "Held out", "Patient"],
        [
            (
                case.id,
                case.state,
                "" if case.mark in ("none", "unspecified") else case.mark,
                case.round or None,
                case.predicted_minutes,
                case.held_out,
                case.group_key,
            )
            for case in listed
        ],
        listed,
    )


@cases.command("mark")
@click.argument("case_id", metavar="CASE")
@click.argument("mark", type=click.Choice(MARKS))
@pass_session
def mark_case(session: Session, case_id: str, mark: str) -> None:
    """Mark a case.

    easy comes first, hard comes last, put-off is not handed out, none clears the mark.
    """
    marked = session.project().mark(case_id, mark)
    session.out.done(f"Case {marked.id} is marked {marked.mark}.", marked)
