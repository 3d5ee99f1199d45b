"""Messages to records and back, where names differ or something must be decided."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import segmentations_pb2 as segmentations
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.convert import from_proto, to_proto, word_of
from rekindle.vocabulary import FileFormat, Organ, OrganQuality, SourceReference

from rekindle_inference.domain.abstention import Abstention, QualityLimit
from rekindle_inference.domain.records import ModelVersion, Receipt, VolumeRecord
from rekindle_inference.domain.results import Result
from rekindle_inference.domain.segmentations import Priority, SegmentationState
from rekindle_inference.usecases.checks import wrong_field
from rekindle_inference.usecases.segmentations import CreateSegmentation, SegmentationView
from rekindle_inference.usecases.studies import SeriesOutcome


def format_from_proto(number: int, default: FileFormat, *, field: str) -> FileFormat:
    """`default` where it is unspecified."""
    if number == common.FILE_FORMAT_UNSPECIFIED:
        return default
    return word_of(FileFormat, common.FileFormat, number, field)


def priority_from_proto(number: int) -> Priority:
    """ROUTINE where it is unspecified."""
    if number == inference.PRIORITY_UNSPECIFIED:
        return Priority.ROUTINE
    return word_of(Priority, inference.Priority, number, "priority")


def states_from_proto(numbers: Iterable[int]) -> frozenset[SegmentationState]:
    return frozenset(
        word_of(SegmentationState, segmentations.SegmentationState, number, "states") for number in numbers
    )


def organs_from_proto(organs: Iterable[common.Organ]) -> tuple[Organ, ...]:
    return tuple(from_proto(organ, Organ, field=f"organs[{index}]") for index, organ in enumerate(organs))


def limits_from_proto(limits: Iterable[inference.QualityLimit]) -> list[QualityLimit]:
    return [from_proto(limit, QualityLimit, field=f"limits[{index}]") for index, limit in enumerate(limits)]


def model_from_proto(selector: inference.ModelSelector) -> str | None:
    """The id of a model version, or None for whichever is active."""
    chosen = selector.WhichOneof("model")
    if chosen == "model_version_id" and selector.model_version_id:
        return selector.model_version_id
    if chosen == "active" and selector.active:
        return None
    raise wrong_field("model", "must be a model_version_id, or active")


def criteria_from_proto(request: volumes.FindVolumesRequest) -> dict[str, str]:
    """What volumes are looked for by, by the kind of source; "" for any."""
    return {
        "study_instance_uid": request.study_instance_uid,
        "series_instance_uid": request.series_instance_uid,
        "frame_of_reference_uid": request.frame_of_reference_uid,
        "sop_instance_uid": request.sop_instance_uid,
        "accession_number": request.accession_number,
    }


def create_segmentation_from_proto(request: segmentations.CreateSegmentationRequest) -> CreateSegmentation:
    return from_proto(request, CreateSegmentation, model_version_id=model_from_proto(request.model))


def outcome_to_proto(outcome: SeriesOutcome) -> volumes.SeriesOutcome:
    volume = None if outcome.volume is None else volume_to_proto(outcome.volume, is_whole=False)
    return to_proto(outcome, volumes.SeriesOutcome, volume=volume)


def volume_to_proto(volume: VolumeRecord, *, is_whole: bool = True) -> volumes.Volume:
    """Without the list of instances unless `is_whole`: many volumes' lists would be too long for one message."""
    source = volume.source if is_whole else replace(volume.source, sop_instance_uids=())
    return to_proto(volume, volumes.Volume, source=source_to_proto(source), create_time=volume.created_at)


def source_to_proto(source: SourceReference) -> common.SourceReference | None:
    """None where nothing is known of the source."""
    return None if source == SourceReference() else to_proto(source, common.SourceReference)


def receipt_to_proto(receipt: Receipt) -> volumes.Receipt:
    return to_proto(receipt, volumes.Receipt, create_time=receipt.created_at)


def model_to_proto(model: ModelVersion) -> inference.Model:
    return to_proto(model, inference.Model, create_time=model.created_at)


def quality_to_proto(quality: Iterable[OrganQuality]) -> list[common.OrganQuality]:
    return [to_proto(organ, common.OrganQuality) for organ in quality]


def abstentions_to_proto(abstentions: Iterable[Abstention]) -> list[inference.Abstention]:
    return [to_proto(abstention, inference.Abstention) for abstention in abstentions]


def limits_to_proto(limits: Iterable[QualityLimit]) -> list[inference.QualityLimit]:
    return [to_proto(limit, inference.QualityLimit) for limit in limits]


def segmentation_to_proto(view: SegmentationView) -> segmentations.Segmentation:
    segmentation = view.segmentation
    return to_proto(
        segmentation,
        segmentations.Segmentation,
        model_version_id=segmentation.model_version_id or segmentation.requested_model_version_id,
        queue_position=view.position,
        create_time=segmentation.created_at,
        start_time=segmentation.started_at,
        end_time=segmentation.ended_at,
        expire_time=segmentation.expire_at,
    )


def result_to_proto(result: Result) -> segmentations.Result:
    return to_proto(
        result,
        segmentations.Result,
        volume_id=result.image_volume_id,
        source=source_to_proto(result.source),
        create_time=result.created_at,
    )
