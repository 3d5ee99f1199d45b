"""Work in progress: drafts of labels, and sessions of several cases; frozen records."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from rekindle.errors import FieldViolation, InvalidInput
from rekindle.vocabulary import OrganState, TimeSegment

from rekindle_scheduler.domain.ids import (
    AnnotatorId,
    CaseId,
    DraftId,
    LeaseId,
    ProjectId,
    ReceiptId,
    SessionId,
    VolumeId,
)
from rekindle_scheduler.domain.policy import MAX_LEASE, Policy

MAX_SESSION_MINUTES: Final = 1440.0
MAX_SESSION_CASES: Final = 200


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An unfinished label, saved under a lease; never trained on."""

    draft_id: DraftId
    project_id: ProjectId
    case_id: CaseId
    lease_id: LeaseId
    annotator_id: AnnotatorId
    mask_volume_id: VolumeId
    receipt_id: ReceiptId
    #: Statuses so far; organs may be left out.
    organ_states: tuple[OrganState, ...] = ()
    note: str = ""
    #: Time that is booked for the lease so far; of a late draft its own, which is not booked.
    time_segments: tuple[TimeSegment, ...] = ()
    save_time: datetime
    #: Number of saves.
    revision: int = 1
    #: Whether it came under a lost lease; it is kept beside the lease's own draft.
    late: bool = False


@dataclass(frozen=True, kw_only=True)
class Session:
    """Cases leased ahead for some minutes of work; their leases name it."""

    session_id: SessionId
    project_id: ProjectId
    annotator_id: AnnotatorId
    #: Minutes that were asked for.
    minutes: float
    #: Minutes that its cases are expected to take.
    predicted_minutes: float
    #: Whether its cases are worked on offline.
    detached: bool
    create_time: datetime
    expire_time: datetime
    #: Moment of its end; None before.
    end_time: datetime | None = None


def check_session(minutes: float, max_cases: int) -> None:
    """InvalidInput unless there is something to fill: 0 < minutes <= a day, and no negative number of cases."""
    violations: list[FieldViolation] = []
    if not 0.0 < minutes <= MAX_SESSION_MINUTES:
        violations.append(FieldViolation("minutes", f"is {minutes:g}: must be more than 0 and at most 1440 (a day)"))
    if not 0 <= max_cases <= MAX_SESSION_CASES:
        violations.append(FieldViolation("max_cases", f"is {max_cases}: must be between 0 and {MAX_SESSION_CASES}"))
    if violations:
        raise InvalidInput(
            f"the session cannot be filled: {violations[0].field} {violations[0].description}", violations=violations
        )


def session_lease_duration(policy: Policy, minutes: float, requested: timedelta | None, *, detached: bool) -> timedelta:
    """How long the leases of a session last: as asked for, else as the policy says and the session needs."""
    if requested is not None:
        return requested
    if detached:
        return policy.detached_lease_duration
    return min(MAX_LEASE, max(policy.lease_duration, timedelta(minutes=minutes)))
