"""`rekindle study` and `rekindle volumes`: DICOM studies in, volumes found by where they came from."""

from __future__ import annotations

from pathlib import Path

import click

from rekindle.cli.options import RekindleGroup, pass_session
from rekindle.cli.output import counted
from rekindle.cli.session import Session
from rekindle.volume_records import Volume


@click.group(cls=RekindleGroup)
def study() -> None:
    """DICOM studies of several series."""


@study.command("add")
@click.argument("folder", metavar="DIR_OR_TAR", type=click.Path(path_type=Path, exists=True))
@click.option("--cases", "as_cases", is_flag=True, help="Register the series of the project's modality as cases.")
@click.option("--patient", metavar="KEY", default="", help="With --cases: joins all cases of one patient.")
@pass_session
def add_study(session: Session, folder: Path, as_cases: bool, patient: str) -> None:
    """Add all series of a study.

    They are the DICOM files of DIR, in any order.

    Each series becomes a volume, or says why it cannot. Adding the same files again changes nothing.
    """
    project = session.project()
    with session.out.progress() as bars:
        series = project.upload_study(folder, progress=bars.bar("uploading the study"))
    taken = [item for item in series if item.volume_id]
    if as_cases:
        fitting = [item.volume_id for item in taken if item.modality == project.modality]
        project.register_cases([(volume_id, patient) for volume_id in fitting])
    session.out.rows(
        f"{len(taken)} of {len(series)} series became volumes",
        ["Series", "Modality", "Volume", "Why not"],
        [(item.series_instance_uid, item.modality, item.volume_id, item.message) for item in series],
        series,
    )


@click.group(cls=RekindleGroup)
def volumes() -> None:
    """Images and masks of the project."""


@volumes.command("find")
@click.option("--study", metavar="UID", default="", help="Study Instance UID.")
@click.option("--series", metavar="UID", default="", help="Series Instance UID.")
@click.option("--frame-of-reference", metavar="UID", default="", help="Frame of Reference UID.")
@click.option("--instance", metavar="UID", default="", help="SOP Instance UID of one of its images.")
@click.option("--accession", metavar="NUMBER", default="", help="Accession number.")
@pass_session
def find_volumes(
    session: Session, study: str, series: str, frame_of_reference: str, instance: str, accession: str
) -> None:
    """Find images by their DICOM identifiers.

    All that are given must hold.
    """
    listed = [
        _described(volume)
        for volume in session.project().find_volumes(
            study_instance_uid=study,
            series_instance_uid=series,
            frame_of_reference_uid=frame_of_reference,
            sop_instance_uid=instance,
            accession_number=accession,
        )
    ]
    session.out.rows(
        counted(len(listed), "volume"),
        ["Volume", "Modality", "Size", "Series"],
        [(item["volume_id"], item["modality"], item["size"], item["series_instance_uid"]) for item in listed],
        listed,
    )


@volumes.command("save")
@click.argument("volume_id", metavar="VOLUME")
@click.argument("path", metavar="OUT", type=click.Path(path_type=Path, dir_okay=False))
@pass_session
def save_volume(session: Session, volume_id: str, path: Path) -> None:
    """Save a volume as OUT.

    OUT ends in .nii.gz, .nrrd or .mha; for a mask of a DICOM series also in .dcm (DICOM SEG).
    """
    project = session.project()
    with session.out.progress() as bars:
        saved = project.save(volume_id, path, progress=bars.bar("fetching the volume"))
    session.out.done(f"Wrote {saved}.", {"volume_id": volume_id, "path": str(saved)})


def _described(volume: Volume) -> dict[str, str]:
    return {
        "volume_id": volume.volume_id,
        "modality": volume.modality,
        "size": " x ".join(str(size) for size in volume.geometry.size),
        "study_instance_uid": volume.source.study_instance_uid,
        "series_instance_uid": volume.source.series_instance_uid,
        "accession_number": volume.source.accession_number,
    }
