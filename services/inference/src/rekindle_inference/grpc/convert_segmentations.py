"""Messages of segmentations and results to records and back."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import segmentations_pb2 as messages
from rekindle.convert import timestamp

from rekindle_inference.domain.abstention import Abstention, AbstentionReason, QualityLimit
from rekindle_inference.domain.results import Result, ResultOrigin
from rekindle_inference.domain.segmentations import Priority, SegmentationState
from rekindle_inference.grpc import convert
from rekindle_inference.usecases.checks import wrong_field
from rekindle_inference.usecases.results import Publication
from rekindle_inference.usecases.segmentations import Seen, Wanted

_PRIORITIES: dict[Any, Priority] = {
    inference.PRIORITY_STAT: Priority.STAT,
    inference.PRIORITY_ROUTINE: Priority.ROUTINE,
    inference.PRIORITY_BATCH: Priority.BATCH,
}
_STATES: dict[Any, SegmentationState] = {
    messages.SEGMENTATION_STATE_QUEUED: SegmentationState.QUEUED,
    messages.SEGMENTATION_STATE_RUNNING: SegmentationState.RUNNING,
    messages.SEGMENTATION_STATE_SUCCEEDED: SegmentationState.SUCCEEDED,
    messages.SEGMENTATION_STATE_FAILED: SegmentationState.FAILED,
    messages.SEGMENTATION_STATE_CANCELLED: SegmentationState.CANCELLED,
    messages.SEGMENTATION_STATE_EXPIRED: SegmentationState.EXPIRED,
}
_ORIGINS: dict[Any, ResultOrigin] = {
    messages.RESULT_ORIGIN_MODEL: ResultOrigin.MODEL,
    messages.RESULT_ORIGIN_CORRECTED: ResultOrigin.CORRECTED,
    messages.RESULT_ORIGIN_REVIEWED: ResultOrigin.REVIEWED,
}
_REASONS: dict[Any, AbstentionReason] = {
    inference.ABSTENTION_REASON_LOW_CONFIDENCE: AbstentionReason.LOW_CONFIDENCE,
    inference.ABSTENTION_REASON_NOTHING_FOUND: AbstentionReason.NOTHING_FOUND,
}


def to_priority(value: int) -> Priority:
    """ROUTINE where it is unspecified; InvalidInput where it is unknown."""
    if value == inference.PRIORITY_UNSPECIFIED:
        return Priority.ROUTINE
    return convert.known(_PRIORITIES, value, "priority")


def to_states(values: Iterable[int]) -> frozenset[SegmentationState]:
    return frozenset(convert.known(_STATES, value, "states") for value in values)


def to_wanted(request: messages.CreateSegmentationRequest) -> Wanted:
    return Wanted(
        volume_id=request.volume_id,
        model_version_id=convert.to_selected_model(request.model),
        priority=to_priority(request.priority),
        time_to_live=_to_span(request.time_to_live) if request.HasField("time_to_live") else None,
    )


def to_publication(request: messages.PublishResultRequest) -> Publication:
    return Publication(
        mask_volume_id=request.mask_volume_id,
        origin=convert.known(_ORIGINS, request.origin, "origin"),
        model_version_id=request.model_version_id,
        submission_id=request.submission_id,
        retracted=request.retracted,
    )


def to_limits(limits: Iterable[inference.QualityLimit]) -> list[QualityLimit]:
    return [
        QualityLimit(
            organ_id=limit.organ_id,
            min_soft_dice_confidence=limit.min_soft_dice_confidence,
            abstain_when_nothing_found=limit.abstain_when_nothing_found,
        )
        for limit in limits
    ]


def from_limits(limits: Iterable[QualityLimit]) -> list[inference.QualityLimit]:
    return [
        inference.QualityLimit(
            organ_id=limit.organ_id,
            min_soft_dice_confidence=limit.min_soft_dice_confidence,
            abstain_when_nothing_found=limit.abstain_when_nothing_found,
        )
        for limit in limits
    ]


def from_abstentions(abstentions: Iterable[Abstention]) -> list[inference.Abstention]:
    return [
        inference.Abstention(
            organ_id=abstention.organ_id,
            soft_dice_confidence=abstention.soft_dice_confidence,
            limit=abstention.limit,
            message=abstention.message,
            reason=convert.back(_REASONS, abstention.reason),
        )
        for abstention in abstentions
    ]


def from_segmentation(seen: Seen) -> messages.Segmentation:
    segmentation = seen.segmentation
    return messages.Segmentation(
        segmentation_id=segmentation.segmentation_id,
        project_id=segmentation.project_id,
        volume_id=segmentation.volume_id,
        model_version_id=segmentation.model_version_id or segmentation.requested_model_version_id or "",
        priority=convert.back(_PRIORITIES, segmentation.priority),
        state=convert.back(_STATES, segmentation.state),
        reason=segmentation.reason,
        slices_done=segmentation.slices_done,
        slices_total=segmentation.slices_total,
        queue_position=seen.position,
        create_time=timestamp(segmentation.created_at),
        start_time=timestamp(segmentation.started_at),
        end_time=timestamp(segmentation.ended_at),
        expire_time=timestamp(segmentation.expire_at),
        result_id=segmentation.result_id or "",
        failure_reason=segmentation.failure_reason,
    )


def from_result(result: Result) -> messages.Result:
    return messages.Result(
        result_id=result.result_id,
        cursor=result.cursor,
        project_id=result.project_id,
        volume_id=result.image_volume_id,
        mask_volume_id=result.mask_volume_id,
        origin=convert.back(_ORIGINS, result.origin),
        model_version_id=result.model_version_id or "",
        supersedes_result_id=result.supersedes_result_id or "",
        retracted=result.retracted,
        quality=convert.from_quality(result.quality),
        abstentions=from_abstentions(result.abstentions),
        source=convert.from_source(result.source),
        segmentation_id=result.segmentation_id or "",
        submission_id=result.submission_id or "",
        create_time=timestamp(result.created_at),
        outranked_by_result_id=result.outranked_by_result_id or "",
    )


def _to_span(duration: Duration) -> timedelta:
    try:
        return duration.ToTimedelta()
    except (ValueError, OverflowError):
        raise wrong_field("time_to_live", "is no duration") from None
