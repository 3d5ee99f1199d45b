"""The ledger of minutes: book time, list it, sum it up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from rekindle.vocabulary import TimeSegment

from rekindle_scheduler.domain.cases import Case
from rekindle_scheduler.domain.ids import ProjectId
from rekindle_scheduler.domain.leases import held_until
from rekindle_scheduler.domain.minutes import (
    MAX_SEGMENT_SECONDS,
    active_minutes,
    calibration_factor,
    check_segments,
    not_booked,
    summarize,
)
from rekindle_scheduler.domain.records import Lease, LedgerEntry, LedgerSummary, Submission
from rekindle_scheduler.state import UnitOfWork
from rekindle_scheduler.usecases.projects import ProjectDetails, project_details
from rekindle_scheduler.usecases.rounds import RoundDetails, with_minutes


@dataclass(frozen=True, kw_only=True)
class Report:
    """A project as a whole."""

    details: ProjectDetails
    rounds: tuple[RoundDetails, ...]
    ledger: LedgerSummary


def check_time(
    uow: UnitOfWork, lease: Lease, segments: Sequence[TimeSegment], *, until: datetime | None = None
) -> None:
    """InvalidInput where this time cannot have been spent on the case, held `until` then or as long as the lease.

    `segments` are new ones: what is booked for the lease counts as well.
    """
    # A segment that began before may reach into the lease's time.
    since = lease.start_time - timedelta(seconds=MAX_SEGMENT_SECONDS)
    earlier = uow.ledger.of_annotator(lease.project_id, lease.annotator_id, since=since)
    check_segments(
        segments,
        held_from=lease.start_time,
        held_until=until or held_until(lease, uow.now),
        earlier=[entry.segment for entry in earlier],
        booked=booked_for(uow, lease),
    )


def booked_for(uow: UnitOfWork, lease: Lease) -> tuple[TimeSegment, ...]:
    """What was booked for a lease itself, in the order in which it came."""
    return tuple(entry.segment for entry in uow.ledger.of_lease(lease.lease_id))


def book_release(uow: UnitOfWork, lease: Lease, case: Case, segments: Sequence[TimeSegment]) -> None:
    """Book time on a case that was released without a label."""
    fresh = not_booked(segments, booked_for(uow, lease))
    check_time(uow, lease, fresh)
    book_lease(uow, lease, case, fresh)


def book_lease(uow: UnitOfWork, lease: Lease, case: Case, segments: Sequence[TimeSegment]) -> None:
    """Time on a case that has no label yet; the caller has checked it."""
    entries = [
        LedgerEntry(
            project_id=lease.project_id,
            case_id=lease.case_id,
            annotator_id=lease.annotator_id,
            round=lease.round,
            held_out=case.held_out,
            coarse_model_version_id=lease.coarse_model_version_id,
            segment=segment,
            lease_id=lease.lease_id,
        )
        for segment in segments
    ]
    uow.ledger.add(entries)


def book_submission(uow: UnitOfWork, submission: Submission, segments: Sequence[TimeSegment]) -> None:
    """Time of a label, of what was not booked for its lease before; the caller has checked it."""
    entries = [
        LedgerEntry(
            project_id=submission.project_id,
            case_id=submission.case_id,
            annotator_id=submission.annotator_id,
            round=submission.round,
            held_out=submission.held_out,
            coarse_model_version_id=submission.coarse_model_version_id,
            segment=segment,
            submission_id=submission.submission_id,
        )
        for segment in segments
    ]
    uow.ledger.add(entries)


def minutes_factor(uow: UnitOfWork, project_id: ProjectId) -> float:
    """Real minutes per predicted minute so far.

    Corrections of labels are left out: their minutes are not those of correcting a coarse label.
    """
    corrected = uow.predictions.corrected(project_id)
    return calibration_factor((label.predicted_minutes, active_minutes(segments)) for label, segments in corrected)


def list_ledger(
    uow: UnitOfWork, project_id: ProjectId, *, after: tuple[str, int], limit: int
) -> list[tuple[tuple[str, int], LedgerEntry]]:
    """Time segments, those of one submission together, each with its place."""
    uow.projects.get(project_id)
    return uow.ledger.page(project_id, after=after, limit=limit)


def report(uow: UnitOfWork, project_id: ProjectId) -> Report:
    """The project, its rounds and its minutes, of one moment."""
    return Report(
        details=project_details(uow, project_id),
        rounds=tuple(with_minutes(uow, project_id, uow.rounds.all(project_id))),
        ledger=summarize(uow.ledger.all(project_id)),
    )
