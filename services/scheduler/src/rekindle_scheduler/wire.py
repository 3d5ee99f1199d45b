"""The API's common messages as records and back, for the service's own face and its clients of other services."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from rekindle.api.common.v1 import common_pb2 as pb
from rekindle.errors import FieldViolation, InvalidInput
from rekindle_servicekit.moments import timestamp

from rekindle_scheduler.domain.enums import Modality, OrganStatus, TimeKind, TimeSource
from rekindle_scheduler.domain.policy import TrainingWindow
from rekindle_scheduler.domain.records import (
    CodedConcept,
    Example,
    Organ,
    OrganEffort,
    OrganQuality,
    OrganState,
    TimeSegment,
)

E = TypeVar("E", bound=StrEnum)

#: The words of the enums are the API's names in lower case without this prefix.
PREFIXES: dict[Any, str] = {
    pb.Modality: "MODALITY_",
    pb.OrganStatus: "ORGAN_STATUS_",
    pb.TimeKind: "TIME_KIND_",
    pb.TimeSource: "TIME_SOURCE_",
    pb.ExampleSource: "EXAMPLE_SOURCE_",
}


def number_of(api_enum: Any, word: StrEnum, prefix: str | None = None) -> Any:
    """The API's number for a word."""
    return api_enum.Value((PREFIXES[api_enum] if prefix is None else prefix) + word.value.upper())


def word_of(words: type[E], api_enum: Any, number: int, field: str, prefix: str | None = None) -> E:
    """The word for one of the API's numbers; InvalidInput for one that is unspecified or not known."""
    start = PREFIXES[api_enum] if prefix is None else prefix
    name = api_enum.Name(number) if number in api_enum.values() else ""
    try:
        return words(name.removeprefix(start).lower())
    except ValueError:
        known = ", ".join(start + word.value.upper() for word in words)
        what = "is missing" if number == 0 else f"is {number}, which is not known"
        description = f"{what}: must be one of {known}"
        raise InvalidInput(f"{field} {description}", violations=[FieldViolation(field, description)]) from None


def window_to_api(window: TrainingWindow) -> pb.TrainingWindow:
    days = [number_of(pb.Weekday, day, "WEEKDAY_") for day in window.days]
    return pb.TrainingWindow(days=days, start=window.start, end=window.end, time_zone=window.time_zone)


def moment(message: Timestamp, field: str) -> datetime:
    """In UTC; InvalidInput where it lies outside the calendar."""
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise InvalidInput(
            f"{field} is no moment of the calendar", violations=[FieldViolation(field, "is out of range")]
        ) from None


def span(message: Duration, field: str) -> timedelta:
    """InvalidInput for one that is out of range."""
    try:
        return timedelta(seconds=message.seconds, microseconds=message.nanos / 1000)
    except OverflowError:
        raise InvalidInput(f"{field} is out of range", violations=[FieldViolation(field, "is out of range")]) from None


def duration(seconds: float) -> Duration:
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def organ_to_api(organ: Organ) -> pb.Organ:
    code = organ.code
    concept = None
    if code is not None:
        concept = pb.CodedConcept(scheme=code.scheme, value=code.value, meaning=code.meaning)
    return pb.Organ(id=organ.id, label_value=organ.label_value, code=concept)


def organ_from_api(message: pb.Organ) -> Organ:
    code = None
    if message.HasField("code"):
        concept = message.code
        code = CodedConcept(scheme=concept.scheme, value=concept.value, meaning=concept.meaning)
    return Organ(id=message.id, label_value=message.label_value, code=code)


def organ_state_to_api(state: OrganState) -> pb.OrganState:
    return pb.OrganState(organ_id=state.organ_id, status=number_of(pb.OrganStatus, state.status))


def organ_states_from_api(messages: Iterable[pb.OrganState]) -> tuple[OrganState, ...]:
    return tuple(
        OrganState(
            organ_id=message.organ_id,
            status=word_of(OrganStatus, pb.OrganStatus, message.status, f"organ_states[{index}].status"),
        )
        for index, message in enumerate(messages)
    )


def segment_to_api(segment: TimeSegment) -> pb.TimeSegment:
    return pb.TimeSegment(
        kind=number_of(pb.TimeKind, segment.kind),
        source=number_of(pb.TimeSource, segment.source),
        start_time=timestamp(segment.start_time),
        active_seconds=segment.active_seconds,
        tool=segment.tool,
    )


def segments_from_api(messages: Iterable[pb.TimeSegment]) -> tuple[TimeSegment, ...]:
    return tuple(_segment(message, f"time_segments[{index}]") for index, message in enumerate(messages))


def _segment(message: pb.TimeSegment, path: str) -> TimeSegment:
    if not message.HasField("start_time"):
        field = f"{path}.start_time"
        raise InvalidInput(f"{field} is missing", violations=[FieldViolation(field, "is missing")])
    return TimeSegment(
        kind=word_of(TimeKind, pb.TimeKind, message.kind, f"{path}.kind"),
        source=word_of(TimeSource, pb.TimeSource, message.source, f"{path}.source"),
        start_time=moment(message.start_time, f"{path}.start_time"),
        active_seconds=message.active_seconds,
        tool=message.tool,
    )


def effort_to_api(effort: OrganEffort) -> pb.OrganEffort:
    return pb.OrganEffort(
        organ_id=effort.organ_id,
        voxels_changed=effort.voxels_changed,
        added_path_length_mm=effort.added_path_length_mm,
        dice=effort.dice,
        components_removed=effort.components_removed,
    )


def effort_from_api(message: pb.OrganEffort) -> OrganEffort:
    return OrganEffort(
        organ_id=message.organ_id,
        voxels_changed=message.voxels_changed,
        added_path_length_mm=message.added_path_length_mm,
        dice=message.dice if message.HasField("dice") else None,
        components_removed=message.components_removed,
    )


def quality_to_api(quality: OrganQuality) -> pb.OrganQuality:
    return pb.OrganQuality(
        organ_id=quality.organ_id,
        soft_dice_confidence=quality.soft_dice_confidence,
        predicted_ml=quality.predicted_ml,
        boundary_length_mm=quality.boundary_length_mm,
        components=quality.components,
        slices=quality.slices,
    )


def quality_from_api(message: pb.OrganQuality) -> OrganQuality:
    known = message.HasField("soft_dice_confidence")
    return OrganQuality(
        organ_id=message.organ_id,
        soft_dice_confidence=message.soft_dice_confidence if known else None,
        predicted_ml=message.predicted_ml,
        boundary_length_mm=message.boundary_length_mm,
        components=message.components,
        slices=message.slices,
    )


def example_to_api(example: Example) -> pb.Example:
    return pb.Example(
        case_id=example.case_id,
        source=number_of(pb.ExampleSource, example.source),
        modality=modality_to_api(example.modality),
        image_digest=example.image_digest,
        mask_digest=example.mask_digest,
        organ_states=[organ_state_to_api(state) for state in example.organ_states],
    )


def modality_to_api(modality: Modality) -> Any:
    return number_of(pb.Modality, modality)


def modality_from_api(number: int, field: str) -> Modality:
    return word_of(Modality, pb.Modality, number, field)
