"""Durable segmentations: what they are, in which order they are started, how they end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import NewType

from rekindle.errors import IllegalTransition

from rekindle_inference.domain.records import ModelVersionId, ProjectId, VolumeId

SegmentationId = NewType("SegmentationId", str)

#: Times that one may be taken up before it is given up; each but the last ended with the service itself.
MAX_ATTEMPTS = 3
#: Pause before what is away (the object store, the engine) is asked again.
RETRY_AFTER = timedelta(seconds=5)


class Priority(StrEnum):
    STAT = "stat"
    ROUTINE = "routine"
    BATCH = "batch"


class SegmentationState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


ENDED = frozenset(
    {
        SegmentationState.SUCCEEDED,
        SegmentationState.FAILED,
        SegmentationState.CANCELLED,
        SegmentationState.EXPIRED,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    """A durable request to segment one image."""

    segmentation_id: SegmentationId
    project_id: ProjectId
    volume_id: VolumeId
    #: The version that was asked for; None for whichever is active when work begins.
    requested_model_version_id: ModelVersionId | None
    #: The version that predicts it, from the moment that work begins.
    model_version_id: ModelVersionId | None = None
    priority: Priority
    #: Place in the queue: the lane first, then the moment; see `queue_place`.
    lane: int
    due_at: datetime
    state: SegmentationState = SegmentationState.QUEUED
    #: For people: why it failed, expired, or waits for something else than its turn.
    reason: str = ""
    #: For programs, where it failed.
    failure_reason: str = ""
    slices_done: int = 0
    slices_total: int = 0
    result_id: str | None = None
    #: Grows with each change: the cursor of whoever watches.
    revision: int = 1
    attempts: int = 0
    #: Whoever works on it; only the holder of the newest claim may write.
    claim: str | None = None
    claim_until: datetime | None = None
    #: Not taken up again before.
    not_before: datetime | None = None
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    #: Not started any more from then on.
    expire_at: datetime

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def queue_place(priority: Priority, created_at: datetime, batch_patience: timedelta) -> tuple[int, datetime]:
    """Lane and moment by which segmentations are started, the smallest first.

    STAT has a lane of its own, before all others. ROUTINE and BATCH share one: BATCH stands as if it had come
    `batch_patience` later, so that it gives way to what is urgent, but not for ever.
    """
    if priority is Priority.STAT:
        return 0, created_at
    return 1, created_at + (batch_patience if priority is Priority.BATCH else timedelta(0))


def start(
    segmentation: Segmentation, *, model_version_id: ModelVersionId, claim: str, now: datetime, until: datetime
) -> Segmentation:
    """Taken up by whoever holds `claim`. A version that was recorded before stays."""
    return _changed(
        segmentation,
        state=SegmentationState.RUNNING,
        model_version_id=segmentation.model_version_id or model_version_id,
        reason="",
        attempts=segmentation.attempts + 1,
        claim=claim,
        claim_until=until,
        not_before=None,
        started_at=segmentation.started_at or now,
        slices_done=0,
        slices_total=0,
    )


def is_worn_out(segmentation: Segmentation) -> bool:
    """Whether it has been taken up as often as it may."""
    return segmentation.attempts >= MAX_ATTEMPTS


def succeed(segmentation: Segmentation, result_id: str, now: datetime, *, slices: int) -> Segmentation:
    """Ended with a result; `slices` were predicted for it, none where the prediction was there already."""
    finished = replace(segmentation, result_id=result_id, slices_done=slices, slices_total=slices)
    return _end(finished, SegmentationState.SUCCEEDED, now)


def fail(segmentation: Segmentation, now: datetime, *, reason: str, message: str) -> Segmentation:
    return replace(_end(segmentation, SegmentationState.FAILED, now, message), failure_reason=reason)


def expire(segmentation: Segmentation, now: datetime) -> Segmentation:
    return _end(segmentation, SegmentationState.EXPIRED, now, "its time to live was over before a worker was free")


def cancel(segmentation: Segmentation, now: datetime) -> Segmentation:
    """IllegalTransition (SEGMENTATION_ENDED) where it has ended otherwise."""
    if segmentation.state is SegmentationState.CANCELLED:
        return segmentation
    if segmentation.ended:
        raise IllegalTransition(
            f"the segmentation has {segmentation.state}: there is nothing to cancel", reason="SEGMENTATION_ENDED"
        )
    return _end(segmentation, SegmentationState.CANCELLED, now)


def put_back(
    segmentation: Segmentation, *, reason: str = "", not_before: datetime | None = None, counted: bool = False
) -> Segmentation:
    """Into the queue again at its old place; `counted`: the attempt is one of those that it may have."""
    return _changed(
        segmentation,
        state=SegmentationState.QUEUED,
        reason=reason,
        attempts=segmentation.attempts if counted else segmentation.attempts - 1,
        claim=None,
        claim_until=None,
        not_before=not_before,
        slices_done=0,
        slices_total=0,
    )


def _end(segmentation: Segmentation, state: SegmentationState, now: datetime, reason: str = "") -> Segmentation:
    return _changed(
        segmentation, state=state, reason=reason, claim=None, claim_until=None, not_before=None, ended_at=now
    )


def _changed(segmentation: Segmentation, **changes: object) -> Segmentation:
    return replace(segmentation, revision=segmentation.revision + 1, **changes)  # type: ignore[arg-type]
