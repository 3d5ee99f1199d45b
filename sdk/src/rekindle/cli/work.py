"""`rekindle next` and `rekindle submit`: the annotator's daily work."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import cast, get_args

import click

from rekindle.cli.describe import describe_lease
from rekindle.cli.options import RekindleCommand, pass_session
from rekindle.cli.session import Session
from rekindle.config import OrganStatusName
from rekindle.errors import InvalidInput, NotFound, RekindleError
from rekindle.leases import Lease, read_token
from rekindle.projects import NoCase, Project
from rekindle.timer import TimeSegment

IMAGE, COARSE, LEASE, SUBMISSION = "image.nii.gz", "coarse.nii.gz", "lease.json", "submission.json"
MASKS = ("mask.nii.gz", "mask.nii")
TOOL = "rekindle command line"
#: Slices named as the ones to look at first.
LOOK_FIRST = 5


@click.command("next", cls=RekindleCommand)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Make the scan's folder in DIR instead of here.",
)
@click.option("--case", "case_id", metavar="CASE", help="This scan instead of the next one.")
@click.option(
    "--hold",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MINUTES",
    help="How long the scan is to stay yours; without it, as the project's policy says.",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="MINUTES",
    help="Wait this long while the model is being prepared, instead of giving up at once.",
)
@pass_session
def next_case(session: Session, out: Path, case_id: str | None, hold: float | None, wait: float) -> None:
    """Fetch the next scan to correct.

    Makes a folder named after the case with image.nii.gz (the scan), coarse.nii.gz (the model's draft, where
    there is one) and lease.json (says that the scan is yours; leave it there).

    Nobody else is given the scan while it is yours. When that time has run out, your correction still counts
    unless somebody else has taken the scan meanwhile.
    """
    project = session.project()
    lease = project.lease(case_id, hold) if case_id else _lease_next(session, project, hold, wait)
    if lease is None:
        session.out.done("Everything is labelled: there is no scan left.", {"complete": True})
        return
    folder = out / lease.case.id
    try:
        _write(session, lease, folder)
    except BaseException:
        lease.release("the scan could not be fetched")
        raise
    first = _look_first(lease)
    data = {**describe_lease(lease), "complete": False, "folder": str(folder), "look_first": first}
    session.out.done(_instructions(lease, project, folder, first), data)


@click.command("submit", cls=RekindleCommand)
@click.argument("path", metavar="DIR_OR_MASK", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--status",
    "statuses",
    multiple=True,
    metavar="ORGAN=STATUS",
    help="What you found about an organ: edited (the usual), accepted (the draft was right), absent (the "
    "patient does not have it), out_of_view (the scan does not show it), not_reviewed (you did not look). "
    "Repeat for more organs.",
)
@click.option("--accept", is_flag=True, help="The draft is right as it is: hand in coarse.nii.gz unchanged.")
@click.option(
    "--minutes",
    type=click.FloatRange(0, 24 * 60),
    metavar="MINUTES",
    help="How long you worked on it, by your own reckoning.",
)
@click.option(
    "--count-elapsed",
    is_flag=True,
    help="Count all the time since `rekindle next`, pauses included, as your working time.",
)
@pass_session
def submit(
    session: Session,
    path: Path,
    statuses: tuple[str, ...],
    accept: bool,
    minutes: float | None,
    count_elapsed: bool,
) -> None:
    """Hand in a correction.

    Name the folder that `rekindle next` made, with your mask.nii.gz in it, or the mask file in that folder.

    Your time: this command cannot see when you worked and when the telephone rang, so it counts nothing by
    itself. Say --minutes 7.5 if you know. --count-elapsed takes the whole time since `rekindle next`, up to
    when the scan ceased to be yours; use it only if you worked without a break. Either is kept in the ledger as
    inferred, not as measured. With neither, the correction is kept without a time.
    """
    if minutes is not None and count_elapsed:
        raise InvalidInput("give --minutes or --count-elapsed, not both")
    folder = path if path.is_dir() else path.parent
    token = _token(folder)
    session.project_name = read_token(token).lease.project_id
    project = session.project()
    mask = _mask(path, accept)
    stated = _statuses(statuses, project, accept)
    lease = project.resume_lease(token)
    segments = _segments(lease, minutes, count_elapsed)
    with session.out.progress() as bars:
        submission = lease.submit(mask, stated, time_segments=segments or None, progress=bars.bar("uploading the mask"))
    (folder / SUBMISSION).write_text(json.dumps(asdict(submission), indent=2))
    (folder / LEASE).unlink()
    if not session.as_json and submission.minutes == 0:
        session.out.remark("No working time was recorded with it; --minutes says how long it took.")
    time = f", {submission.minutes:.1f} min" if submission.minutes else ""
    session.out.done(
        f"Handed in case {submission.case_id} for round {submission.round}{time}. Thank you.\n"
        "`rekindle next` fetches the next scan.",
        submission,
    )


def _lease_next(session: Session, project: Project, hold: float | None, wait: float) -> Lease | None:
    told: set[str] = set()

    def waiting(why: NoCase) -> None:
        if wait and why.message not in told:
            told.add(why.message)
            session.out.remark(f"Waiting: {why.message}")

    return project.lease_next(hold, wait_s=wait * 60, waiting=waiting)


def _write(session: Session, lease: Lease, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with session.out.progress() as bars:
        lease.image(bars.bar("fetching the scan")).save(folder / IMAGE)
        coarse = lease.coarse_label(bars.bar("fetching the draft"))
    if coarse is not None:
        coarse.save(folder / COARSE)
    (folder / LEASE).write_text(lease.token())


def _look_first(lease: Lease) -> list[int]:
    """Slices of the draft that are most likely wrong; a hint, so no failure of it stops the work."""
    try:
        return [rank.slice for rank in lease.ranked_slices(limit=LOOK_FIRST)]
    except RekindleError:
        return []


def _instructions(lease: Lease, project: Project, folder: Path, look_first: list[int]) -> str:
    draft = (folder / COARSE).exists()
    expected = lease.case.predicted_minutes
    values = ", ".join(f"{organ.id} = {organ.label_value}" for organ in project.organs)
    first = f"1. Open {folder / IMAGE}" + (
        f" with {COARSE} as the segmentation, and correct it." if draft else " and draw the organs."
    )
    if look_first:
        first += f"\n   Look first at slices {', '.join(map(str, look_first))} (counted from 0)."
    return "\n".join(
        [
            f"Case {lease.case.id} (round {lease.round}) is yours until {lease.expires.astimezone():%d %b %H:%M}."
            + (f" Expected: about {expected:.0f} min." if draft and expected is not None else ""),
            first,
            f"2. Save the result as {folder / MASKS[0]} ({values}).",
            f"3. rekindle submit {folder} --minutes <how long it took>",
            f"Cannot do it now? rekindle leases release {folder}",
        ]
    )


def _token(folder: Path) -> str:
    if (folder / LEASE).is_file():
        return (folder / LEASE).read_text()
    if (folder / SUBMISSION).is_file():
        raise InvalidInput(f"{folder} was handed in already: see {folder / SUBMISSION}")
    raise NotFound(f"{folder} has no {LEASE}: it must be the folder that `rekindle next` made")


def _mask(path: Path, accept: bool) -> Path:
    if accept:
        coarse = (path if path.is_dir() else path.parent) / COARSE
        if not coarse.is_file() or path.is_file():
            raise InvalidInput("--accept hands in the draft: give the folder, with coarse.nii.gz in it")
        return coarse
    if path.is_file():
        return path
    for name in MASKS:
        if (path / name).is_file():
            return path / name
    raise NotFound(
        f"{path} has no {MASKS[0]}: save your correction under this name, or say --accept if the draft is right"
    )


def _statuses(given: tuple[str, ...], project: Project, accept: bool) -> Mapping[str, OrganStatusName]:
    stated: dict[str, OrganStatusName] = {organ.id: "accepted" for organ in project.organs} if accept else {}
    for item in given:
        organ, _, status = item.partition("=")
        status = status.replace("-", "_")
        if status not in get_args(OrganStatusName):
            raise InvalidInput(
                f"--status {item!r}: write ORGAN=STATUS, STATUS one of {', '.join(get_args(OrganStatusName))}"
            )
        stated[organ] = cast(OrganStatusName, status)
    return stated


def _segments(lease: Lease, minutes: float | None, count_elapsed: bool) -> list[TimeSegment]:
    end = datetime.now(UTC)
    if minutes is not None:
        # Counted from what is written down, so that the same command again is the same submission.
        start = lease.started
        end = start + timedelta(minutes=minutes)
    elif count_elapsed:
        start, end = lease.started, min(end, lease.expires)
    else:
        return []
    seconds = max(0.0, (end - start).total_seconds())
    return [TimeSegment(kind="editing", active_seconds=seconds, start_time=start, source="inferred", tool=TOOL)]
