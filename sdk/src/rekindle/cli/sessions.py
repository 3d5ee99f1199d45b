"""`rekindle session`: several cases at once, also to take along."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from rekindle.case_folder import SESSION
from rekindle.cli.describe import describe_lease
from rekindle.cli.options import RekindleGroup, pass_session
from rekindle.cli.output import counted
from rekindle.cli.session import Session
from rekindle.errors import InvalidInput
from rekindle.offline import HandIn, case_folders, hand_in_case
from rekindle.records import NoCase
from rekindle.sessions import Session as Ahead

WORDS = {
    "handed-in": "submitted",
    "handed-in-before": "submitted before",
    "kept-as-draft": "came too late: kept as a draft for a reviewer",
    "no-mask": "has no mask yet: left alone",
}


@click.group(cls=RekindleGroup)
def session() -> None:
    """Several cases at once, online or offline."""


@session.command("take")
@click.argument("minutes", metavar="MINUTES", type=float)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    required=True,
    help="Make a folder for each case in DIR.",
)
@click.option("--detached", is_flag=True, help="To work offline: the cases stay yours for a week (see the policy).")
@click.option("--max-cases", type=click.IntRange(min=1), metavar="N", help="No more cases than these.")
@pass_session
def take(out_session: Session, minutes: float, out: Path, detached: bool, max_cases: int | None) -> None:
    """Fetch as many cases as fit MINUTES.

    Each comes in a folder as `rekindle next` makes it.
    Save each correction as mask.nii.gz beside its image, then run `rekindle session hand-in DIR`.
    """
    if (out / SESSION).exists():
        raise InvalidInput(f"{out} holds a session already: take another folder")
    taken = out_session.project().session(minutes, detached=detached, max_cases=max_cases or 0)
    if isinstance(taken, NoCase):
        out_session.out.done(f"No case now: {taken.message}.", {"complete": taken.reason == "complete", "cases": []})
        return
    try:
        with out_session.out.progress() as bars:
            folders = taken.save(out, bars.count("fetching cases", len(taken.leases)))
    except BaseException:
        taken.end()
        raise
    until = f"{taken.expires.astimezone():%d %b %H:%M}" if taken.expires else "further notice"
    out_session.out.done(
        f"{counted(len(folders), 'case')} in {out}, expected to take {taken.predicted_minutes:.0f} min, yours until "
        f"{until}.\n`rekindle session hand-in {out}` submits what has a mask.nii.gz by then.",
        describe(taken, out),
    )


@session.command("hand-in")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--end", is_flag=True, help="Release the cases without a mask.")
@pass_session
def hand_in(out_session: Session, folder: Path, end: bool) -> None:
    """Submit every case of DIR that has a mask.

    Doing it again submits what is new, and nothing twice.
    A label.json beside a mask says more: {"statuses": {"spleen": "absent"}, "minutes": 7.5}.
    """
    folders = case_folders(folder)
    done: list[HandIn] = []
    with out_session.out.progress() as bars:
        begin: Callable[[str], None] = bars.count("submitting", len(folders))
        for case_folder in folders:
            begin(case_folder.name)
            done.append(hand_in_case(out_session.client, case_folder))
    if end:
        _end(out_session, folder)
    out_session.out.rows(
        f"{counted(sum(item.outcome == 'handed-in' for item in done), 'case')} submitted",
        ["Case", "What became of it"],
        [(item.case_id, WORDS[item.outcome]) for item in done],
        [{"case_id": item.case_id, "outcome": item.outcome, "reason": item.reason} for item in done],
    )


@session.command("list")
@click.option("--all", "include_ended", is_flag=True, help="Ended ones too.")
@pass_session
def list_sessions(out_session: Session, include_ended: bool) -> None:
    """Your sessions."""
    listed = list(out_session.project().sessions(include_ended=include_ended))
    out_session.out.rows(
        "Your sessions",
        ["Session", "Cases>", "Left>", "Expected min>", "Offline", "Yours until", "Ended"],
        [
            (
                item.id,
                item.cases,
                len(item.leases),
                item.predicted_minutes,
                item.detached,
                f"{item.expires.astimezone():%d %b %H:%M}" if item.expires else "",
                f"{item.ended.astimezone():%d %b %H:%M}" if item.ended else "",
            )
            for item in listed
        ],
        [describe(item, None) for item in listed],
    )


@session.command("end")
@click.argument("session_id", metavar="SESSION")
@pass_session
def end_session(out_session: Session, session_id: str) -> None:
    """Release the cases that were not submitted.

    Files stay where they are.
    """
    ended = out_session.project().open_session(session_id)
    ended.end()
    out_session.out.done(f"Session {ended.id} is over.", describe(ended, None))


def _end(out_session: Session, folder: Path) -> None:
    file = folder / SESSION
    try:
        session_id = json.loads(file.read_text())["session_id"]
    except (OSError, ValueError, KeyError, TypeError):
        raise InvalidInput(f"{file} does not name a session: end it with `rekindle session end`") from None
    out_session.project().open_session(session_id).end()


def describe(ahead: Ahead, folder: Path | None) -> dict[str, Any]:
    """A session as JSON has it."""
    return {
        "id": ahead.id,
        "minutes": ahead.minutes,
        "predicted_minutes": ahead.predicted_minutes,
        "detached": ahead.detached,
        "expires": ahead.expires,
        "ended": ahead.ended,
        "folder": None if folder is None else str(folder),
        "cases": [describe_lease(lease) for lease in ahead.leases],
    }
