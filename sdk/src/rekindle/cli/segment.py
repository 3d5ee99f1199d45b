"""`rekindle segment`: one scan, now, outside any round."""

from __future__ import annotations

from pathlib import Path

import click

from rekindle.cli.options import RekindleCommand, pass_session
from rekindle.cli.output import dice
from rekindle.cli.session import Session
from rekindle.errors import InvalidInput
from rekindle.formats import MASK_SUFFIXES, format_to_write


@click.command("segment", cls=RekindleCommand)
@click.argument("file", metavar="SCAN", type=click.Path(path_type=Path, exists=True))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="OUT",
    help="Where the mask goes: a name that ends in .nii.gz, .nrrd, .mha or, for DICOM, .dcm (DICOM SEG).",
)
@click.option("--model", metavar="MODEL_ID", help="This model version instead of the serving one.")
@pass_session
def segment(session: Session, file: Path, output: Path, model: str | None) -> None:
    """Segment one scan (a file, or a folder with the DICOM files of a series) with the serving model.

    The scan is not kept, and no project changes.

    The mask has the grid of the scan; its values are the project's organs.
    """
    format = format_to_write(output)
    if format is None:
        raise InvalidInput(f"{output.name}: the mask's name must end in one of {', '.join(MASK_SUFFIXES)}")
    project = session.project()
    with session.out.progress() as bars:
        result = session.client.segment(
            file,
            project_id=project.id,
            model_version_id=model,
            result_format=format,
            progress=bars.bar("segmenting slices"),
        )
    result.mask.save(output)
    session.out.rows(
        f"Wrote {output}",
        ["Organ", "Volume ml>", "Slices>", "Parts>", "Confidence>"],
        [
            (
                item.organ_id,
                item.predicted_ml,
                item.slices,
                item.components,
                dice(item.soft_dice_confidence),
            )
            for item in result.quality
        ],
        {"output": str(output), "model_version_id": result.model_version_id, "quality": result.quality},
    )
