"""`rekindle project export` and `rekindle project import`."""

from __future__ import annotations

from pathlib import Path

import click

from rekindle.cli.describe import describe_project
from rekindle.cli.options import CommandOfAll, RekindleCommand, pass_session
from rekindle.cli.session import Session


@click.command("export", cls=RekindleCommand)
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@pass_session
def export_project(session: Session, file: Path) -> None:
    """Write the whole project into FILE.

    FILE holds labels, ledger, rounds, models and volumes.
    """
    project = session.project()
    project.export(file)
    size = file.stat().st_size
    session.out.done(
        f"{project.name}: written to {file} ({size / 1e6:.1f} MB).", {"file": str(file), "size_bytes": size}
    )


@click.command("import", cls=CommandOfAll)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@pass_session
def import_project(session: Session, file: Path) -> None:
    """Take in a project from FILE, with the same ids. Repeating it changes nothing."""
    project = session.client.import_project(file)
    session.out.done(f"{project.name}: imported, {project.state}.", describe_project(project))
