"""`rekindle models`: which versions there are and which one serves."""

from __future__ import annotations

from pathlib import Path

import click

from rekindle.cli.describe import describe_model
from rekindle.cli.options import RekindleGroup, pass_session
from rekindle.cli.session import Session
from rekindle.errors import ModelNotReady, NotFound
from rekindle.models import Model
from rekindle.projects import Project


@click.group(cls=RekindleGroup)
def models() -> None:
    """Model versions: list, activate, import."""


@models.command("list")
@pass_session
def list_models(session: Session) -> None:
    """The project's model versions, newest first."""
    listed = session.project().models()
    session.out.rows(
        "Model versions",
        ["Version>", "Role", "Serves", "Id", "Package", "Remarks"],
        [
            (
                item.version,
                item.role,
                "yes" if item.active else "",
                item.id,
                item.package_digest[:12],
                "has learnt from an erased patient" if item.trained_on_purged else "",
            )
            for item in listed
        ],
        [describe_model(item) for item in listed],
    )


@models.command("activate")
@click.argument("version", metavar="VERSION")
@pass_session
def activate(session: Session, version: str) -> None:
    """Let VERSION serve from now on.

    VERSION is a number or an id; an older one is a rollback.

    The rounds of a project go on with the version that they promoted, and their next promotion moves this again.
    """
    project = session.project()
    chosen = _find(project, version)
    try:
        current = project.model().id
    except ModelNotReady:
        current = ""
    served = chosen.activate(expected_current=current)
    session.out.done(f"Version {served.version} serves now.", describe_model(served))


@models.command("import")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, exists=True, file_okay=False))
@click.option(
    "--role",
    type=click.Choice(["igniter", "sustainer"]),
    default="igniter",
    show_default=True,
    help="What it is to the project: its first model, or a later one.",
)
@pass_session
def import_model(session: Session, folder: Path, role: str) -> None:
    """Import a model.

    DIR holds manifest.json and model.onnx.
    It is tried out before it is accepted, and serves only after `rekindle models activate` or
    `rekindle project start --igniter`.
    """
    manifest, onnx = folder / "manifest.json", folder / "model.onnx"
    for path in (manifest, onnx):
        if not path.is_file():
            raise NotFound(f"{folder} has no {path.name}")
    with session.out.progress() as bars:
        bars.count("uploading the model", 1)(onnx.name)
        model = session.project().import_model(manifest.read_bytes(), onnx.read_bytes(), role=role)
    session.out.done(f"Imported as version {model.version} ({model.id}).", describe_model(model))


def _find(project: Project, version: str) -> Model:
    for model in project.models():
        if version in (model.id, str(model.version)):
            return model
    raise NotFound(f"there is no version {version}: `rekindle models list` shows those there are")
