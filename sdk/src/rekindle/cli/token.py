"""`rekindle token`: tokens for callers, made on this machine; no service is asked."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import click

from rekindle.cli.options import CommandOfAll, RekindleGroup, pass_session
from rekindle.cli.session import Session
from rekindle.tokens import ROLE_NAMES, create_token


@click.group(cls=RekindleGroup)
def token() -> None:
    """Tokens of the services' callers."""


@token.command("create", cls=CommandOfAll)
@click.argument("subject")
@click.option("--role", "roles", multiple=True, required=True, type=click.Choice(ROLE_NAMES), help="May be repeated.")
@click.option("--name", default="", help="Name for people to read; the subject unless given.")
@click.option("--days", type=click.IntRange(min=1), help="Days that the token is good for; for ever unless given.")
@click.option(
    "--add-to",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Append the line to this callers' file instead of printing it.",
)
@pass_session
def create(
    session: Session, subject: str, roles: tuple[str, ...], name: str, days: int | None, add_to: Path | None
) -> None:
    """Create a token for SUBJECT.

    The token is printed once and stored nowhere. The line goes into the file that the setting callers_file of the
    services names; they read it again by themselves. Taking the line out ends the token.
    """
    expires = None if days is None else datetime.now(UTC) + timedelta(days=days)
    made = create_token(subject, roles=roles, name=name, expires=expires)
    if add_to is not None:
        _append(add_to, made.line)
    if session.as_json:
        session.out.data({"token": made.token, "line": made.line})
        return
    click.echo(made.token)
    click.echo("Give this token to its caller; it is shown only now.", err=True)
    if add_to is None:
        click.echo("Add this line to callers_file of each service:", err=True)
        click.echo(made.line)


def _append(path: Path, line: str) -> None:
    """Readable by the owner alone where it is new; on a line of its own where the last one has no end."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    with os.fdopen(descriptor, "r+b") as file:
        content = file.read()
        start = "\n" if content and not content.endswith(b"\n") else ""
        file.write(f"{start}{line}\n".encode())
