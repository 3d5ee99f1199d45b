"""`rekindle segment`: one image, now, outside any round."""

from __future__ import annotations

from pathlib import Path

import click

from rekindle.cli.options import RekindleCommand, pass_session
from rekindle.cli.output import dice
from rekindle.cli.session import Session
from rekindle.client import Segmentation
from rekindle.errors import InvalidInput
from rekindle.formats import MASK_SUFFIXES, FormatName, format_to_write
from rekindle.segmentations import PRIORITIES, PriorityName


@click.command("segment", cls=RekindleCommand)
@click.argument("file", metavar="IMAGE", type=click.Path(path_type=Path, exists=True))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="OUT",
    help="Where the mask goes: a name that ends in .nii.gz, .nrrd, .mha or, for DICOM, .dcm (DICOM SEG).",
)
@click.option("--model", metavar="MODEL_ID", help="This model version instead of the serving one.")
@click.option(
    "--priority",
    type=click.Choice(PRIORITIES),
    default="routine",
    show_default=True,
    help="stat pauses everything else; batch is done when nothing else waits.",
)
@click.option(
    "--durable",
    is_flag=True,
    help="Keep the image in the project and have it segmented whether or not this command lives; the mask becomes one "
    "of the project's results.",
)
@pass_session
def segment(
    session: Session, file: Path, output: Path, model: str | None, priority: PriorityName, durable: bool
) -> None:
    """Segment one image with the serving model.

    IMAGE is a file, or a folder with the DICOM files of a series.
    The image is not kept, and no project changes, unless --durable is given.

    The mask has the grid of the image; its values are the project's organs.
    """
    format = format_to_write(output)
    if format is None:
        raise InvalidInput(f"{output.name}: the mask's name must end in one of {', '.join(MASK_SUFFIXES)}")
    work = _durably if durable else _streamed
    answer = work(session, file, model, priority, format)
    answer.mask.save(output)
    left_out = ", ".join(item.organ_id for item in answer.abstentions)
    session.out.rows(
        f"Wrote {output}" + (f" without {left_out}: below the project's limits" if left_out else ""),
        ["Organ", "Volume ml>", "Slices>", "Parts>", "Confidence>"],
        [
            (item.organ_id, item.predicted_ml, item.slices, item.components, dice(item.soft_dice_confidence))
            for item in answer.quality
        ],
        {
            "output": str(output),
            "model_version_id": answer.model_version_id,
            "quality": answer.quality,
            "abstentions": answer.abstentions,
        },
    )


def _streamed(
    session: Session, file: Path, model: str | None, priority: PriorityName, format: FormatName
) -> Segmentation:
    project = session.project()
    with session.out.progress() as bars:
        return session.client.segment(
            file,
            project_id=project.id,
            model_version_id=model,
            result_format=format,
            priority=priority,
            progress=bars.bar("segmenting slices"),
        )


def _durably(
    session: Session, file: Path, model: str | None, priority: PriorityName, format: FormatName
) -> Segmentation:
    asked = session.project().segment(file, priority=priority, model_version_id=model)
    session.out.remark(f"segmentation {asked.id}: goes on also without this command")
    with session.out.progress() as bars:
        move = bars.bar("segmenting slices")
        for change in asked.watch():
            move(change.slices_done, change.slices_total)
    result = asked.result()
    return Segmentation(
        mask=result.mask(format),
        model_version_id=result.model_version_id,
        quality=result.quality,
        abstentions=result.abstentions,
    )
