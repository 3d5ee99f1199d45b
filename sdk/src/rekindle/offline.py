"""Cases in folders: written to be worked on without the service, submitted later, each once.

A case's folder holds image.nii.gz, coarse.nii.gz (where there is one) and lease.json. The tool adds mask.nii.gz (or
mask.nrrd, mask.mha, a DICOM SEG as mask.dcm) and, if it has more to say, label.json:
`{"statuses": {"spleen": "absent"}, "minutes": 7.5}`, or instead of the minutes `"time_segments"`, each as
`TimeSegment.to_dict` writes it. What was submitted leaves submission.json in place of lease.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from rekindle.case_folder import BOOKED, ELAPSED, LABEL, LEASE, SUBMISSION, mask_in
from rekindle.config import OrganStatusName
from rekindle.errors import InvalidInput, LeaseLost, NotFound
from rekindle.leases import Lease
from rekindle.records import Submission
from rekindle.tickets import read_ticket
from rekindle.timer import TimeSegment
from rekindle.vocabulary import TimeKind, TimeSource

if TYPE_CHECKING:
    from rekindle.client import Client

TOOL = "rekindle offline"

OutcomeName = Literal["handed-in", "kept-as-draft", "no-mask", "handed-in-before"]


@dataclass(frozen=True, kw_only=True)
class HandIn:
    """What became of one case's folder."""

    folder: Path
    case_id: str
    outcome: OutcomeName
    submission: Submission | None = None
    #: Why a label was kept as a draft.
    reason: str = ""


def case_folders(folder: Path) -> list[Path]:
    """The folders of cases below `folder`, by name. Raises NotFound where there is none."""
    folders = [path.parent for name in (LEASE, SUBMISSION) for path in folder.glob(f"*/{name}")]
    if not folders:
        raise NotFound(f"{folder} holds no cases: it must be the folder that `rekindle session take` made")
    return sorted(set(folders))


def hand_in(client: Client, folder: str | Path, begin: Callable[[str], None] | None = None) -> Iterator[HandIn]:
    """Submits every case below `folder` that has a mask. Doing it again submits what is new, and nothing twice.

    A label that came too late is kept as a draft by the service, for a reviewer; the others go on.
    """
    for case in case_folders(Path(folder)):
        if begin is not None:
            begin(case.name)
        yield hand_in_case(client, case)


def hand_in_case(client: Client, folder: Path) -> HandIn:
    """Submits one case's folder, once. Raises InvalidInput for a label.json or a mask that cannot be used."""
    if not (folder / LEASE).is_file():
        return HandIn(folder=folder, case_id=folder.name, outcome="handed-in-before")
    mask = mask_in(folder)
    ticket = (folder / LEASE).read_text()
    written = read_ticket(ticket)
    if mask is None:
        return HandIn(folder=folder, case_id=written.lease.case.case_id, outcome="no-mask")
    lease = client.project(written.lease.project_id).resume(ticket, exclusive=False)
    statuses, segments = _label(folder, lease)
    try:
        submission = lease.submit(mask, statuses, time_segments=segments)
    except LeaseLost as lost:
        return HandIn(folder=folder, case_id=lease.case.id, outcome="kept-as-draft", reason=lost.message)
    finish(folder, submission)
    return HandIn(folder=folder, case_id=submission.case_id, outcome="handed-in", submission=submission)


def finish(folder: Path, submission: Submission) -> None:
    """Marks the folder's case as submitted: submission.json takes the place of lease.json."""
    (folder / SUBMISSION).write_text(json.dumps(asdict(submission), indent=2, default=str))
    (folder / LEASE).unlink()
    for name in (ELAPSED, BOOKED):
        (folder / name).unlink(missing_ok=True)


def elapsed(folder: Path, lease: Lease, tool: str) -> list[TimeSegment]:
    """The time from the fetch of the case to the end of its lease, less what is booked.

    The folder keeps it before it is sent for the first time: sending it again is the same submission.
    """
    file = folder / ELAPSED
    if not file.is_file():
        minutes = (min(datetime.now(UTC), lease.expires) - lease.started).total_seconds() / 60
        _write(file, [segment.to_dict() for segment in reckoned(folder, lease, minutes, tool)])
    try:
        return [TimeSegment.from_dict(item) for item in json.loads(file.read_text())]
    except (ValueError, KeyError, TypeError, AttributeError) as failure:
        raise InvalidInput(f"{file} cannot be read: remove it, and say --minutes instead") from failure


def reckoned(folder: Path, lease: Lease, minutes: float, tool: str) -> list[TimeSegment]:
    """Segments for the minutes in all that an annotator states, less those that are booked.

    Made from the folder alone, so that the same minutes again are the same submission.
    """
    booked = booked_minutes(folder)
    if minutes <= booked:
        return []
    start = lease.started + timedelta(minutes=booked)
    seconds = (minutes - booked) * 60
    return [
        TimeSegment(
            kind=TimeKind.EDITING, active_seconds=seconds, start_time=start, source=TimeSource.INFERRED, tool=tool
        )
    ]


def booked_minutes(folder: Path) -> float:
    """Minutes that drafts have booked for the folder's lease."""
    try:
        return float(json.loads((folder / BOOKED).read_text())["minutes"])
    except FileNotFoundError:
        return 0.0
    except (ValueError, KeyError, TypeError) as failure:
        raise InvalidInput(f"{folder / BOOKED} cannot be read: fetch the case again by `rekindle take-up`") from failure


def note_booked(folder: Path, minutes: float) -> None:
    """Writes down the booked minutes, so that a later total does not count them twice."""
    _write(folder / BOOKED, {"minutes": minutes})


def _write(file: Path, content: object) -> None:
    partial = file.with_suffix(".part")
    partial.write_text(json.dumps(content))
    partial.replace(file)


def _label(folder: Path, lease: Lease) -> tuple[Mapping[str, OrganStatusName], list[TimeSegment] | None]:
    """Statuses and time of label.json; without one every organ is edited, and the ticket's time counts."""
    file = folder / LABEL
    if not file.is_file():
        return {}, None
    try:
        written = cast("dict[str, Any]", json.loads(file.read_text()))
        statuses = cast("dict[str, OrganStatusName]", dict(written.get("statuses", {})))
        if "time_segments" in written:
            return statuses, [TimeSegment.from_dict(item) for item in written["time_segments"]]
        if "minutes" in written:
            return statuses, reckoned(folder, lease, float(written["minutes"]), TOOL)
    except (ValueError, KeyError, TypeError, AttributeError) as failure:
        raise InvalidInput(
            f'{file} cannot be read: write {{"statuses": {{"ORGAN": "STATUS"}}, "minutes": NUMBER}}'
        ) from failure
    return statuses, None
