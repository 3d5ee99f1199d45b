"""What services answer, as plain records that hide protobuf."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.api.scheduler.v1 import scheduler_pb2 as scheduler
from rekindle.api.trainer.v1 import trainer_pb2 as trainer
from rekindle.convert import from_proto, name_of
from rekindle.vocabulary import OrganQuality


def moment(message: Any, field: str) -> datetime | None:
    """A timestamp field as an aware datetime in UTC, or None."""
    return getattr(message, field).ToDatetime(tzinfo=UTC) if message.HasField(field) else None


@dataclass(frozen=True, kw_only=True)
class Case:
    """One volume of the target set."""

    id: str
    volume_id: str
    group_key: str
    #: "registered", "ready", "leased", "labelled", "put-off", "in-review" or "purged".
    state: str
    mark: str
    held_out: bool
    round: int
    submission_id: str
    predicted_minutes: float | None
    coarse_mask_volume_id: str
    model_version_id: str
    quality: tuple[OrganQuality, ...]
    #: Submission that waits for a reviewer; empty if none does.
    pending_submission_id: str = ""

    @classmethod
    def from_proto(cls, case: records.Case) -> Case:
        coarse = case.coarse_label
        return from_proto(
            case,
            cls,
            id=case.case_id,
            predicted_minutes=coarse.predicted_minutes if case.HasField("coarse_label") else None,
            coarse_mask_volume_id=coarse.mask_volume_id,
            model_version_id=coarse.model_version_id,
            quality=tuple(from_proto(item, OrganQuality) for item in coarse.quality),
        )


@dataclass(frozen=True, kw_only=True)
class SeedCase:
    """One labelled case of the seed set."""

    seed_case_id: str
    #: "CT" or "MR".
    modality: str
    image_volume_id: str
    mask_volume_id: str

    @classmethod
    def from_proto(cls, message: records.SeedCase) -> SeedCase:
        modality = name_of(common.Modality, message.modality).upper()
        return from_proto(message, cls, modality=modality)


@dataclass(frozen=True, kw_only=True)
class Submission:
    """One corrected label as it was sent, and what became of it."""

    id: str
    case_id: str
    round: int
    mask_volume_id: str
    mask_digest: str
    #: State: "accepted", "draft" (too late), "pending" (waits for a reviewer), "rejected" or "withdrawn".
    review_state: str
    held_out: bool
    minutes: float
    #: Organ id to Dice of the coarse label against this correction; None where both are empty.
    coarse_dice: dict[str, float | None]
    #: Organ id to the added path length in mm.
    added_path_length_mm: dict[str, float]
    coarse_model_version_id: str
    revision: int
    #: Submission that counted before it.
    supersedes_submission_id: str = ""
    #: Submission whose mask was corrected, where it was not a coarse label.
    started_from_submission_id: str = ""
    annotator_id: str = ""
    created: datetime | None = None
    #: Annotator id of the reviewer; empty before a review.
    reviewed_by: str = ""
    reviewed: datetime | None = None
    review_comment: str = ""
    withdrawn: datetime | None = None
    withdraw_reason: str = ""
    #: The first round whose training or measuring used it, 0 for none.
    snapshot_round: int = 0

    @classmethod
    def from_proto(cls, message: records.Submission) -> Submission:
        return from_proto(
            message,
            cls,
            id=message.submission_id,
            minutes=sum(segment.active_seconds for segment in message.time_segments) / 60,
            coarse_dice={item.organ_id: item.dice if item.HasField("dice") else None for item in message.effort},
            added_path_length_mm={item.organ_id: item.added_path_length_mm for item in message.effort},
            created=moment(message, "create_time"),
            reviewed=moment(message, "review_time"),
            withdrawn=moment(message, "withdraw_time"),
        )


@dataclass(frozen=True, kw_only=True)
class NoCase:
    """Why there is no case to lease now."""

    #: "preparing", "round-taken", "complete" or "not-running".
    reason: str
    message: str
    retry_after_s: float

    @classmethod
    def from_proto(cls, message: scheduler.NoCase) -> NoCase:
        return from_proto(message, cls, retry_after_s=message.retry_after.ToNanoseconds() / 1e9)


@dataclass(frozen=True, kw_only=True)
class Round:
    """One turn of the loop; round 0 is the igniter's."""

    number: int
    #: "selecting", "annotating", "training", "promoting", "predicting" or "closed".
    state: str
    selected_case_ids: tuple[str, ...]
    labelled_cases: int
    labelled_total: int
    run_id: str
    snapshot_digest: str
    candidate_model_version_id: str
    serving_model_version_id: str
    #: Decision on the candidate; None until there is one.
    promoted: bool | None
    decision_reason: str
    minutes: float
    reason: str

    @classmethod
    def from_proto(cls, message: records.Round) -> Round:
        return from_proto(
            message,
            cls,
            promoted=message.decision.promoted if message.HasField("decision") else None,
            decision_reason=message.decision.reason,
        )


@dataclass(frozen=True, kw_only=True)
class Event:
    """Something that happened in a project. Keep the cursor: a later watch resumes after it."""

    cursor: int
    kind: str
    message: str
    round: int
    details: dict[str, str]
    time: datetime | None

    @classmethod
    def from_proto(cls, message: records.RoundEvent) -> Event:
        return from_proto(message, cls)


@dataclass(frozen=True, kw_only=True)
class LedgerEntry:
    """One stretch of time that was written to the ledger."""

    case_id: str
    annotator_id: str
    round: int
    held_out: bool
    kind: str
    source: str
    minutes: float
    coarse_model_version_id: str
    submission_id: str

    @classmethod
    def from_proto(cls, message: records.LedgerEntry) -> LedgerEntry:
        return from_proto(
            message,
            cls,
            kind=name_of(common.TimeKind, message.segment.kind),
            source=name_of(common.TimeSource, message.segment.source),
            minutes=message.segment.active_seconds / 60,
        )


@dataclass(frozen=True, kw_only=True)
class RoundMinutes:
    """A round's part of the ledger."""

    round: int
    cases: int
    minutes: float
    held_out_cases: int
    held_out_minutes: float


@dataclass(frozen=True, kw_only=True)
class Ledger:
    """All minutes of a project."""

    minutes_total: float
    minutes_held_out: float
    minutes_measured: float
    minutes_inferred: float
    minutes_simulated: float
    rounds: tuple[RoundMinutes, ...]

    @classmethod
    def from_proto(cls, message: records.LedgerSummary) -> Ledger:
        return from_proto(message, cls)


@dataclass(frozen=True, kw_only=True)
class Metric:
    """A point of a training run's curve."""

    cursor: int
    phase: str
    step: int
    steps: int
    epoch: int
    epochs: int
    loss: float
    dice: float | None
    eta_seconds: float

    @classmethod
    def from_proto(cls, message: trainer.Metric) -> Metric:
        return from_proto(message, cls)
