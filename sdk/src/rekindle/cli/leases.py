"""`rekindle leases`: the cases that are yours now."""

from __future__ import annotations

from pathlib import Path

import click

from rekindle.case_folder import LEASE
from rekindle.cli.describe import describe_lease
from rekindle.cli.options import RekindleGroup, pass_session
from rekindle.cli.session import Session
from rekindle.errors import NotFound
from rekindle.tickets import read_ticket


@click.group(cls=RekindleGroup)
def leases() -> None:
    """Your cases now: list them, release them."""


@leases.command("list")
@pass_session
def list_leases(session: Session) -> None:
    """Cases that you have fetched but not submitted."""
    live = session.project().my_leases()
    session.out.rows(
        "Your cases",
        ["Case", "Round>", "Expected min>", "Yours until", "Lease"],
        [
            (
                lease.case.id,
                lease.round,
                lease.case.predicted_minutes,
                f"{lease.expires.astimezone():%d %b %H:%M}",
                lease.id,
            )
            for lease in live
        ],
        [describe_lease(lease) for lease in live],
    )


@leases.command("release")
@click.argument("case_or_lease", metavar="CASE_OR_DIR")
@click.option("--reason", default="", metavar="TEXT", help="Why, in your own words; no patient data, please.")
@pass_session
def release(session: Session, case_or_lease: str, reason: str) -> None:
    """Release a case without a label.

    Another annotator may then take it. Name it by its case, by its lease, or by the folder that `rekindle next`
    made. Files stay where they are.
    """
    written = Path(case_or_lease) / LEASE
    if written.is_file():
        record = read_ticket(written.read_text()).lease
        case_or_lease, session.project_name = record.lease_id, record.project_id
    for lease in session.project().my_leases():
        if case_or_lease in (lease.id, lease.case.id):
            lease.release(reason)
            written.unlink(missing_ok=True)
            session.out.done(f"Released case {lease.case.id}.", describe_lease(lease))
            return
    raise NotFound(f"{case_or_lease} is not among your cases: `rekindle leases list` shows them")
