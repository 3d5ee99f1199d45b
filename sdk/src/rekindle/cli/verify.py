"""`rekindle verify`: whether databases and object store agree."""

from __future__ import annotations

from dataclasses import asdict

import click

from rekindle.cli.options import CommandOfAll, pass_session
from rekindle.cli.output import counted
from rekindle.cli.session import Session


@click.command("verify", cls=CommandOfAll)
@click.option("--deep", is_flag=True, help="Read every object and compute its digest; takes as long as reading takes.")
@click.option(
    "--grace",
    "grace_h",
    type=click.FloatRange(min=0, min_open=True),
    default=24.0,
    show_default=True,
    metavar="HOURS",
    help="Leave out objects younger than this that nothing refers to: uploads under way.",
)
@pass_session
@click.pass_context
def verify(ctx: click.Context, session: Session, deep: bool, grace_h: float) -> None:
    """Check that databases and object store agree.

    Nothing is changed.
    Exits with 1 where something is missing, damaged or inconsistent. Orphaned objects only take space.
    """
    done = session.client.verify(deep=deep, grace_s=max(1, round(grace_h * 3600)))
    session.out.rows(
        f"{counted(done.rows, 'row')} and {counted(done.objects, 'object')} looked at"
        + (f", {done.bytes_read / 1e9:.2f} GB read" if deep else ""),
        ["What", "Service", "Where", "Why", "What to do"],
        [(item.kind, item.service, item.where, item.message, item.remedy) for item in done.findings],
        {**asdict(done), "is_sound": done.is_sound},
    )
    if not done.is_sound:
        ctx.exit(1)
