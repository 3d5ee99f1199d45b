"""`rekindle draft` and `rekindle take-up`: unfinished work, here and elsewhere."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from rekindle._names import file_name
from rekindle.case_folder import MASKS, mask_in, write_case
from rekindle.cli.describe import describe_lease
from rekindle.cli.options import RekindleCommand, RekindleGroup, pass_session
from rekindle.cli.session import Session
from rekindle.cli.work import TOOL, lease_ticket, stated
from rekindle.drafts import Draft
from rekindle.errors import InvalidInput, NotFound
from rekindle.offline import note_booked, reckoned
from rekindle.tickets import read_ticket

FOLDER = click.Path(path_type=Path, file_okay=False, exists=True)


@click.group(cls=RekindleGroup)
def draft() -> None:
    """Unfinished corrections, kept at the service."""


@draft.command("save")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option(
    "--status", "statuses", multiple=True, metavar="ORGAN=STATUS", help="As of submit; organs may be left out."
)
@click.option("--note", default="", metavar="TEXT", help="A word to yourself; no patient data, please.")
@click.option(
    "--minutes",
    type=click.FloatRange(0, 24 * 60),
    metavar="MINUTES",
    help="How long you have worked on it in all so far, by your own reckoning; never counted twice.",
)
@click.option("--extend", is_flag=True, help="Keep the case yours for longer, too.")
@pass_session
def save(
    session: Session, folder: Path, statuses: tuple[str, ...], note: str, minutes: float | None, extend: bool
) -> None:
    """Keep the unfinished mask of DIR at the service.

    DIR is the folder that `rekindle next` made.
    It is never trained on. `rekindle take-up` goes on with it on another machine.
    """
    mask = mask_in(folder)
    if mask is None:
        raise NotFound(f"{folder} has no {MASKS[0]}: save your work under this name first")
    ticket = lease_ticket(folder)
    session.project_name = read_ticket(ticket).lease.project_id
    project = session.project()
    lease = project.resume(ticket, exclusive=False)
    segments = reckoned(folder, lease, minutes, TOOL) if minutes else None
    kept = lease.save_draft(mask, stated(statuses), note=note, extend=extend, time_segments=segments)
    note_booked(folder, kept.minutes)
    until = f" It is yours until {lease.expires.astimezone():%d %b %H:%M}." if extend else ""
    session.out.done(f"Kept draft {kept.id} of case {kept.case_id}, save number {kept.revision}.{until}", plain(kept))


@draft.command("load")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option("--force", is_flag=True, help="Replace the mask that is in DIR.")
@pass_session
def load(session: Session, folder: Path, force: bool) -> None:
    """Fetch the newest draft as DIR/mask.nii.gz.

    DIR is the folder that `rekindle next` made.
    """
    there = mask_in(folder)
    if there is not None and not force:
        raise InvalidInput(f"{there} is there already: --force replaces it")
    ticket = lease_ticket(folder)
    session.project_name = read_ticket(ticket).lease.project_id
    kept = session.project().resume(ticket, exclusive=False).draft()
    if kept is None:
        raise NotFound("you have no draft of this case")
    if there is not None:
        there.unlink()
    kept.mask().save(folder / MASKS[0])
    session.out.done(f"Wrote {folder / MASKS[0]}, save number {kept.revision}.", plain(kept))


@draft.command("list")
@pass_session
def list_drafts(session: Session) -> None:
    """Your drafts."""
    listed = list(session.project().drafts())
    session.out.rows(
        "Your drafts",
        ["Draft", "Case", "Saved", "Save>", "Minutes>", "Late", "Note"],
        [
            (
                item.id,
                item.case_id,
                f"{item.saved.astimezone():%d %b %H:%M}" if item.saved else "",
                item.revision,
                item.minutes,
                item.late,
                item.note,
            )
            for item in listed
        ],
        [plain(item) for item in listed],
    )


@draft.command("discard")
@click.argument("draft_id", metavar="DRAFT")
@pass_session
def discard(session: Session, draft_id: str) -> None:
    """Discard a draft. Its time stays in the ledger."""
    session.project().discard_draft(draft_id)
    session.out.done(f"Draft {draft_id} is gone.", {"id": draft_id})


@click.command("take-up", cls=RekindleCommand)
@click.argument("case_or_lease", metavar="CASE_OR_LEASE")
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Make the case's folder in DIR instead of here.",
)
@pass_session
def take_up(session: Session, case_or_lease: str, out: Path) -> None:
    """Resume a case here that you began elsewhere.

    Makes the folder as `rekindle next` does, with the mask of your newest draft in it. The tool or machine that
    held the case before can neither save nor submit any more; the time so far goes on.
    """
    project = session.project()
    mine = next((lease for lease in project.my_leases() if case_or_lease in (lease.id, lease.case.id)), None)
    lease = project.resume(mine.id if mine else case_or_lease, tool=TOOL)
    folder = out / file_name(lease.case.id)
    if mask_in(folder) is not None:
        raise InvalidInput(f"{mask_in(folder)} is there already: move it away, or give another --out")
    write_case(out, lease)
    kept = lease.draft()
    if kept is not None:
        kept.mask().save(folder / MASKS[0])
        note_booked(folder, kept.minutes)
    data = {**describe_lease(lease), "folder": str(folder), "draft": plain(kept) if kept else None}
    went_on = f" with your draft of {kept.minutes:.1f} min" if kept else ""
    session.out.done(
        f"Case {lease.case.id} is yours here, in {folder}{went_on}.\n"
        f"`rekindle draft save {folder}` keeps your work, `rekindle submit {folder}` submits it.",
        data,
    )


def plain(kept: Draft) -> dict[str, Any]:
    """A draft as JSON has it."""
    fields = {
        name: getattr(kept, name) for name in Draft.__dataclass_fields__ if name not in ("services", "time_segments")
    }
    return {**fields, "minutes": kept.minutes, "time_segments": [asdict(item) for item in kept.time_segments]}
