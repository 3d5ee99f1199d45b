"""`rekindle segment`: one scan, now, outside any round."""

from __future__ import annotations

from pathlib import Path

import click

from rekindle.cli.files import SUFFIXES
from rekindle.cli.options import RekindleCommand, pass_session
from rekindle.cli.output import dice
from rekindle.cli.session import Session
from rekindle.errors import InvalidInput


@click.command("segment", cls=RekindleCommand)
@click.argument("file", type=click.Path(path_type=Path, exists=True, dir_okay=False))
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    metavar="OUT",
    help="Where the mask goes: a name that ends in .nii.gz.",
)
@click.option("--model", metavar="MODEL_ID", help="This model version instead of the serving one.")
@pass_session
def segment(session: Session, file: Path, output: Path, model: str | None) -> None:
    """Segment one scan with the serving model. The scan is not kept, and no project changes.

    The mask has the grid of the scan; its values are the project's organs.
    """
    if not output.name.endswith(SUFFIXES[0]):
        raise InvalidInput(f"{output.name}: the mask's name must end in .nii.gz")
    project = session.project()
    with session.out.progress() as bars:
        result = session.client.segment(
            file, project_id=project.id, model_version_id=model, progress=bars.bar("segmenting slices")
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
