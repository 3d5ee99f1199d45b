"""The scheduler's words: an enum per enum of the API; a value is the API's name, lower case, no prefix."""

from __future__ import annotations

from enum import StrEnum


class ProjectState(StrEnum):
    DRAFT = "draft"
    IGNITING = "igniting"
    ACTIVE = "active"
    COMPLETE = "complete"
    STALLED = "stalled"


class CaseState(StrEnum):
    REGISTERED = "registered"
    READY = "ready"
    LEASED = "leased"
    LABELLED = "labelled"
    PUT_OFF = "put_off"
    #: Handed in, waiting for a reviewer.
    IN_REVIEW = "in_review"
    #: Erased: only its ids are left.
    PURGED = "purged"


class CaseMark(StrEnum):
    NONE = "none"
    EASY = "easy"
    HARD = "hard"
    PUT_OFF = "put_off"


class LeaseState(StrEnum):
    LIVE = "live"
    SUBMITTED = "submitted"
    RELEASED = "released"
    EXPIRED = "expired"


class ReviewState(StrEnum):
    ACCEPTED = "accepted"
    #: Came too late: kept, and does not count unless a reviewer accepts it.
    DRAFT = "draft"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    #: Counts once a reviewer accepts it.
    PENDING = "pending"


class ReviewVerdict(StrEnum):
    ACCEPT = "accept"
    REJECT = "reject"


class RoundState(StrEnum):
    SELECTING = "selecting"
    ANNOTATING = "annotating"
    TRAINING = "training"
    PROMOTING = "promoting"
    PREDICTING = "predicting"
    CLOSED = "closed"


class DecisionBasis(StrEnum):
    HELD_OUT = "held_out"
    PREQUENTIAL = "prequential"
    FIRST = "first"


class OrderingName(StrEnum):
    EASY_FIRST = "easy_first"
    HARD_FIRST = "hard_first"
    RANDOM = "random"
    UNCERTAINTY = "uncertainty"
    FIRST_COME = "first_come"


class HeldOutSchedule(StrEnum):
    FIRST = "first"
    INTERLEAVED = "interleaved"
    LAST = "last"


class PredictionState(StrEnum):
    PENDING = "pending"
    DONE = "done"
    #: Labelled meanwhile, or its version no longer serves.
    SKIPPED = "skipped"
    FAILED = "failed"
