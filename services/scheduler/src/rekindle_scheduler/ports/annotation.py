"""The scheduler's state: leases, labels, drafts, sessions and the ledger of minutes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from rekindle_scheduler.domain.annotation import Draft, Session
from rekindle_scheduler.domain.ids import (
    AnnotatorId,
    CaseId,
    DraftId,
    LeaseId,
    ProjectId,
    SessionId,
    SubmissionId,
)
from rekindle_scheduler.domain.records import Lease, LedgerEntry, Submission
from rekindle_scheduler.domain.words import LeaseState, ReviewState


class Drafts(Protocol):
    """Unfinished labels. `get` raises NotFound."""

    def save(self, draft: Draft) -> None:
        """Add it, or put it in place of the one with its id."""
        ...

    def get(self, project_id: ProjectId, draft_id: DraftId) -> Draft: ...

    def of_lease(self, lease_id: LeaseId) -> Draft | None:
        """The lease's own; late ones are not."""
        ...

    def newest(self, project_id: ProjectId, case_id: CaseId, annotator_id: AnnotatorId) -> Draft | None:
        """The one saved last; late ones only where there is no other."""
        ...

    def page(
        self, project_id: ProjectId, annotator_id: AnnotatorId, *, after: tuple[datetime, str], limit: int
    ) -> list[tuple[tuple[datetime, str], Draft]]:
        """In the order in which they were begun."""
        ...

    def remove(self, draft_id: DraftId) -> None: ...


class Sessions(Protocol):
    """Sessions of cases. `get` raises NotFound."""

    def add(self, session: Session) -> None: ...

    def get(self, project_id: ProjectId, session_id: SessionId) -> Session: ...

    def page(
        self,
        project_id: ProjectId,
        annotator_id: AnnotatorId,
        *,
        include_ended: bool,
        after: tuple[datetime, str],
        limit: int,
    ) -> list[tuple[tuple[datetime, str], Session]]:
        """Oldest first."""
        ...

    def end(self, session: Session) -> None:
        """It ends now."""
        ...


@dataclass(frozen=True, kw_only=True)
class SubmissionFilter:
    """Which submissions a list shows; the defaults show all."""

    case_id: CaseId | None = None
    round: int = 0
    states: frozenset[ReviewState] = frozenset()
    annotator_id: AnnotatorId | None = None


class Leases(Protocol):
    """Leases. `get` raises NotFound."""

    def add(self, lease: Lease) -> None:
        """Also makes it the one that holds the case."""
        ...

    def get(self, project_id: ProjectId, lease_id: LeaseId) -> Lease: ...

    def extend(self, lease: Lease, expire_time: datetime) -> None: ...

    def end(self, lease: Lease, state: LeaseState, *, reason: str = "") -> None:
        """The lease ends now, in this state; its case is free again, if it was this lease that held it."""
        ...

    def take_up(self, lease: Lease, fencing_token: int, expire_time: datetime, tool: str) -> None:
        """The same lease, live, under a new token, in another tool."""
        ...

    def redirect(self, case_id: CaseId, revises: SubmissionId, instead: SubmissionId | None) -> None:
        """A lease that is to correct the first label is to correct the second."""
        ...

    def live_of(self, project_id: ProjectId, annotator_id: AnnotatorId) -> list[Lease]: ...

    def of_session(self, session_id: SessionId) -> list[Lease]:
        """All of them, ended ones too, in the order in which they were taken."""
        ...


class Submissions(Protocol):
    """Corrected labels; what was sent is never changed once stored. `get` raises NotFound."""

    def add(self, submission: Submission) -> None: ...

    def get(self, project_id: ProjectId, submission_id: SubmissionId) -> Submission: ...

    def update(self, submission: Submission) -> None:
        """Store what became of it: review, withdrawal, the round that it counts for, what it supersedes."""
        ...

    def freeze(self, project_id: ProjectId, round: int, left_out: Iterable[CaseId]) -> None:
        """Those that count now, but for these cases', are in the round's snapshot."""
        ...

    def frozen_cases(self, project_id: ProjectId) -> frozenset[CaseId]:
        """The cases of which any submission is in a snapshot."""
        ...

    def of_case(self, case_id: CaseId) -> list[Submission]:
        """By revision."""
        ...

    def counting(self, project_id: ProjectId) -> list[Submission]:
        """The submissions that count, one per labelled case, in the order they came."""
        ...

    def page(
        self, project_id: ProjectId, which: SubmissionFilter, *, after: int, limit: int
    ) -> list[tuple[int, Submission]]: ...


class Ledger(Protocol):
    """Time segments, each stored once under what it was sent with."""

    def add(self, entries: Sequence[LedgerEntry]) -> None: ...

    def of_lease(self, lease_id: LeaseId) -> list[LedgerEntry]:
        """What was booked for the lease itself: with drafts, or when it was given up."""
        ...

    def assign(self, lease_id: LeaseId, submission: Submission) -> None:
        """What was booked for the lease and belongs to no other label is this label's time."""
        ...

    def of_annotator(
        self, project_id: ProjectId, annotator_id: AnnotatorId, *, since: datetime
    ) -> list[LedgerEntry]: ...

    def minutes_of(self, project_id: ProjectId, rounds: Iterable[int]) -> dict[int, float]:
        """Minutes by round, of all of its cases; rounds without any are left out."""
        ...

    def all(self, project_id: ProjectId) -> list[LedgerEntry]: ...

    def page(
        self, project_id: ProjectId, *, after: tuple[str, int], limit: int | None
    ) -> list[tuple[tuple[str, int], LedgerEntry]]: ...
