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
    #: A label waits for a reviewer.
    IN_REVIEW = "in_review"
    #: The case was erased: only its ids are left.
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
    #: A label that came too late is kept, and does not count unless a reviewer accepts it.
    DRAFT = "draft"
    REJECTED = "rejected"
    WITHDRAWN = "withdrawn"
    #: A label that counts once a reviewer accepts it.
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


class HeldOutSchedule(StrEnum):
    FIRST = "first"
    INTERLEAVED = "interleaved"
    LAST = "last"


class PredictionState(StrEnum):
    PENDING = "pending"
    DONE = "done"
    #: The case was labelled meanwhile, or the version no longer serves.
    SKIPPED = "skipped"
    FAILED = "failed"
