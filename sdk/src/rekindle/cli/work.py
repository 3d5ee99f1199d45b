"""`rekindle next` and `rekindle submit`: the annotator's daily work."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import cast, get_args

import click

from rekindle._names import file_name
from rekindle.case_folder import COARSE, IMAGE, LEASE, MASKS, SUBMISSION, coarse_in, in_format, mask_in
from rekindle.cli.describe import describe_lease
from rekindle.cli.options import RekindleCommand, pass_session
from rekindle.cli.session import Session
from rekindle.config import OrganStatusName
from rekindle.errors import InvalidInput, NotFound, RekindleError
from rekindle.formats import FormatName
from rekindle.leases import Lease
from rekindle.offline import elapsed, finish, reckoned
from rekindle.projects import Project
from rekindle.records import NoCase, Submission
from rekindle.tickets import read_ticket
from rekindle.timer import TimeSegment

TOOL = "rekindle command line"
#: Slices named as the ones to look at first.
LOOK_FIRST = 5


@click.command("next", cls=RekindleCommand)
@click.option(
    "--out",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path(),
    help="Make the case's folder in DIR instead of here.",
)
@click.option("--case", "case_id", metavar="CASE", help="This case instead of the next one.")
@click.option("--revise", is_flag=True, help="With --case: a case that is labelled, to correct its label.")
@click.option(
    "--hold",
    type=click.FloatRange(min=0, min_open=True),
    metavar="MINUTES",
    help="How long the case is to stay yours; without it, as the project's policy says.",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=0.0,
    metavar="MINUTES",
    help="Wait this long while the model is being prepared, instead of giving up at once.",
)
@click.option(
    "--format",
    "format",
    type=click.Choice(("nifti", "nrrd", "metaimage")),
    default="nifti",
    show_default=True,
    help="What your viewer reads: .nii.gz, .nrrd or .mha.",
)
@pass_session
def next_case(
    session: Session,
    out: Path,
    case_id: str | None,
    revise: bool,
    hold: float | None,
    wait: float,
    format: FormatName,
) -> None:
    """Fetch the next case to correct.

    Makes a folder named after the case. It holds image.nii.gz, coarse.nii.gz (the model's label, if there is one;
    with --revise the label that counts) and lease.json (it says that the case is yours; leave it there).

    Nobody else is given the case while it is yours. When that time has run out, your correction still counts
    unless somebody else has taken the case meanwhile.
    """
    if revise and not case_id:
        raise InvalidInput("--revise needs --case: say which case's label is to be corrected")
    project = session.project()
    lease = (
        project.lease(case_id, hold, revise=revise, tool=TOOL) if case_id else _lease_next(session, project, hold, wait)
    )
    if lease is None:
        session.out.done("Everything is labelled: there is no case left.", {"complete": True})
        return
    try:
        folder = out / file_name(lease.case.id)
        _write(session, lease, folder, format)
    except BaseException:
        lease.release("the case could not be fetched")
        raise
    first = _look_first(lease)
    data = {**describe_lease(lease), "complete": False, "folder": str(folder), "look_first": first}
    session.out.done(_instructions(lease, project, folder, first, format), data)


@click.command("submit", cls=RekindleCommand)
@click.argument("path", metavar="DIR_OR_MASK", type=click.Path(path_type=Path, exists=True))
@click.option(
    "--status",
    "statuses",
    multiple=True,
    metavar="ORGAN=STATUS",
    help="What you found about an organ: edited (the usual), accepted (the coarse label was right), absent (the "
    "patient does not have it), out_of_view (the image does not show it), not_reviewed (you did not look). "
    "Repeat for more organs.",
)
@click.option("--accept", is_flag=True, help="The coarse label is right as it is: submit coarse.nii.gz unchanged.")
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
    """Submit a correction.

    Name the folder that `rekindle next` made, with your mask.nii.gz (.nrrd, .mha, or a DICOM SEG as .dcm) in
    it, or the mask file in that folder.

    This command cannot see when you worked, so it counts no time by itself. Say --minutes 7.5 if you know.
    --count-elapsed takes the whole time since `rekindle next`, until the case ceased to be yours; use it only if
    you worked without a break. Either time is kept in the ledger as inferred, not as measured. With neither, the
    correction is kept without a time.
    """
    if minutes is not None and count_elapsed:
        raise InvalidInput("give --minutes or --count-elapsed, not both")
    folder = path if path.is_dir() else path.parent
    ticket = lease_ticket(folder)
    session.project_name = read_ticket(ticket).lease.project_id
    project = session.project()
    mask = _mask(path, accept)
    given = stated(statuses, accepted=[organ.id for organ in project.organs] if accept else ())
    lease = project.resume(ticket, exclusive=False)
    segments = _segments(folder, lease, minutes, count_elapsed)
    with session.out.progress() as bars:
        submission = lease.submit(mask, given, time_segments=segments or None, progress=bars.bar("uploading the mask"))
    finish(folder, submission)
    if not session.as_json and submission.minutes == 0:
        session.out.remark("No working time was recorded with it; --minutes says how long it took.")
    time = f", {submission.minutes:.1f} min" if submission.minutes else ""
    session.out.done(
        f"Submitted case {submission.case_id} for round {submission.round}{time}. Thank you.{_waits(submission)}\n"
        "`rekindle next` fetches the next case.",
        submission,
    )


def _lease_next(session: Session, project: Project, hold: float | None, wait: float) -> Lease | None:
    told: set[str] = set()

    def waiting(why: NoCase) -> None:
        if wait and why.message not in told:
            told.add(why.message)
            session.out.remark(f"Waiting: {why.message}")

    return project.lease_next(hold, wait_s=wait * 60, waiting=waiting)


def _write(session: Session, lease: Lease, folder: Path, format: FormatName) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with session.out.progress() as bars:
        lease.image(bars.bar("fetching the image"), format=format).save(folder / in_format(IMAGE, format))
        fetch = lease.standing_label if lease.revises else lease.coarse_label
        coarse = fetch(bars.bar("fetching its label"), format=format)
    if coarse is not None:
        coarse.save(folder / in_format(COARSE, format))
    (folder / LEASE).write_text(lease.ticket())


def _waits(submission: Submission) -> str:
    return " It counts once a reviewer has accepted it." if submission.review_state == "pending" else ""


def _look_first(lease: Lease) -> list[int]:
    """Slices of the coarse label that are most likely wrong; a hint, so no failure of it stops the work."""
    try:
        return [rank.slice for rank in lease.ranked_slices(limit=LOOK_FIRST)]
    except RekindleError:
        return []


def _instructions(lease: Lease, project: Project, folder: Path, look_first: list[int], format: FormatName) -> str:
    image, coarse, mask = (in_format(name, format) for name in (IMAGE, COARSE, MASKS[0]))
    has_label = (folder / coarse).exists()
    expected = lease.case.predicted_minutes
    values = ", ".join(f"{organ.id} = {organ.label_value}" for organ in project.organs)
    first = f"1. Open {folder / image}" + (
        f" with {coarse} as the segmentation, and correct it." if has_label else " and draw the organs."
    )
    if look_first:
        first += f"\n   Look first at slices {', '.join(map(str, look_first))} (counted from 0)."
    return "\n".join(
        [
            f"Case {lease.case.id} (round {lease.round}) is yours until {lease.expires.astimezone():%d %b %H:%M}."
            + (f" Expected: about {expected:.0f} min." if has_label and expected is not None else ""),
            first,
            f"2. Save the result as {folder / mask} ({values}).",
            f"3. rekindle submit {folder} --minutes <how long it took>",
            f"Cannot do it now? rekindle leases release {folder}",
        ]
    )


def lease_ticket(folder: Path) -> str:
    """The text of lease.json. Raises NotFound, or InvalidInput where the folder was submitted."""
    if (folder / LEASE).is_file():
        return (folder / LEASE).read_text()
    if (folder / SUBMISSION).is_file():
        raise InvalidInput(f"{folder} was submitted already: see {folder / SUBMISSION}")
    raise NotFound(f"{folder} has no {LEASE}: it must be the folder that `rekindle next` made")


def _mask(path: Path, accept: bool) -> Path:
    if accept:
        coarse = coarse_in(path) if path.is_dir() else None
        if coarse is None:
            raise InvalidInput("--accept submits the coarse label: give the folder, with coarse.nii.gz in it")
        return coarse
    if path.is_file():
        return path
    mask = mask_in(path)
    if mask is not None:
        return mask
    raise NotFound(
        f"{path} has no {MASKS[0]}: save your correction under this name, or say --accept if the coarse label is right"
    )


def stated(given: tuple[str, ...], accepted: Iterable[str] = ()) -> Mapping[str, OrganStatusName]:
    """Statuses from --status options, over organs that are accepted as they are."""
    statuses: dict[str, OrganStatusName] = dict.fromkeys(accepted, "accepted")
    for item in given:
        organ, _, status = item.partition("=")
        status = status.replace("-", "_")
        if status not in get_args(OrganStatusName):
            raise InvalidInput(
                f"--status {item!r}: write ORGAN=STATUS, STATUS one of {', '.join(get_args(OrganStatusName))}"
            )
        statuses[organ] = cast(OrganStatusName, status)
    return statuses


def _segments(folder: Path, lease: Lease, minutes: float | None, count_elapsed: bool) -> list[TimeSegment]:
    if minutes is not None:
        return reckoned(folder, lease, minutes, TOOL)
    return elapsed(folder, lease, TOOL) if count_elapsed else []
