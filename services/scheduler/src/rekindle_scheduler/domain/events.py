"""Events: what a project's history tells, and what a transaction did that only metrics count."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from rekindle.vocabulary import TimeSource

from rekindle_scheduler.domain.ids import ProjectId


class EventKind(StrEnum):
    """The kinds as they are delivered; docs/annotation.md lists them."""

    PROJECT_CREATED = "project-created"
    PROJECT_STARTED = "project-started"
    POLICY_UPDATED = "policy-updated"
    REGISTRATION_CLOSED = "registration-closed"
    PROJECT_COMPLETE = "project-complete"
    STALLED = "stalled"
    RETRIED = "retried"
    WAITING = "waiting"
    RESUMED = "resumed"
    ROUND_SELECTING = "round-selecting"
    ROUND_OPENED = "round-opened"
    TRAIN_NOW = "train-now"
    LABELS_FROZEN = "labels-frozen"
    TRAINING_STARTED = "training-started"
    TRAINING_PROGRESS = "training-progress"
    MODEL_PROMOTED = "model-promoted"
    MODEL_REFUSED = "model-refused"
    MODEL_ROLLED_BACK = "model-rolled-back"
    PREDICTION_FAILED = "prediction-failed"
    ROUND_CLOSED = "round-closed"
    CASE_MARKED = "case-marked"
    CASE_RELEASED = "case-released"
    CASE_SUBMITTED = "case-submitted"
    DRAFT_KEPT = "draft-kept"
    REVIEW_REQUESTED = "review-requested"
    LABEL_ACCEPTED = "label-accepted"
    LABEL_REJECTED = "label-rejected"
    LABEL_REVIEWED = "label-reviewed"
    LABEL_WITHDRAWN = "label-withdrawn"
    TIME_NOT_BOOKED = "time-not-booked"
    RESULT_NOT_PUBLISHED = "result-not-published"
    PURGE_STARTED = "purge-started"
    PURGE_DONE = "purge-done"


@dataclass(frozen=True, kw_only=True)
class Event:
    """One line to be added to a project's history."""

    project_id: ProjectId
    kind: EventKind
    message: str
    #: Number of the round that it belongs to, 0 for none.
    round: int = 0
    #: Active time of a label, or length of a round; delivered in the details with one decimal.
    seconds: float | None = None
    #: Number of cases that a round hands out; delivered in the details.
    cases: int | None = None
    #: Ids and states, by name.
    details: Mapping[str, str] = field(default_factory=dict[str, str])

    def delivered_details(self) -> dict[str, str]:
        """The details as texts, the numbers among them."""
        numbers = {"cases": self.cases, "seconds": None if self.seconds is None else f"{self.seconds:.1f}"}
        return {**self.details, **{name: str(number) for name, number in numbers.items() if number is not None}}


@dataclass(frozen=True, kw_only=True)
class TimeBooked:
    """Active time that was booked in the ledger; counted, not told."""

    source: TimeSource
    active_seconds: float


@dataclass(frozen=True, kw_only=True)
class LeasesExpired:
    """Leases that were found run out when their case was leased again; counted, not told."""

    number: int


#: Everything that a committed transaction tells its observer.
Occurrence = Event | TimeBooked | LeasesExpired


@dataclass(frozen=True, kw_only=True)
class RoundEvent:
    """One line of a project's history, as it is stored; a newer release may have stored kinds of its own."""

    #: Place in the history; grows by one with each event of the project.
    cursor: int
    project_id: ProjectId
    time: datetime
    kind: str
    message: str
    round: int
    details: Mapping[str, str] = field(default_factory=dict[str, str])
