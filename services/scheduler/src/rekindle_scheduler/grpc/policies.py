"""The policy as a message and back; parts that are not set take their defaults."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any, TypeVar

from rekindle.api.common.v1 import common_pb2
from rekindle.api.scheduler.v1 import records_pb2 as pb

from rekindle_scheduler import wire
from rekindle_scheduler.domain.enums import HeldOutSchedule, OrderingName, Weekday
from rekindle_scheduler.domain.policy import (
    GeometricSizes,
    HeldOutPolicy,
    MinutesBudget,
    Policy,
    PromotionPolicy,
    ReviewPolicy,
    RoundSizes,
    Sizing,
    TrainingPolicy,
    TrainingWindow,
)

E = TypeVar("E", bound=StrEnum)


def policy_to_api(policy: Policy) -> pb.Policy:
    message = pb.Policy(
        ordering=wire.number_of(pb.Ordering, policy.ordering, "ORDERING_"),
        candidate_pool=policy.candidate_pool,
        held_out=_held_out_to_api(policy.held_out),
        promotion=pb.PromotionPolicy(
            margin_dice=policy.promotion.margin_dice,
            min_held_out_cases=policy.promotion.min_held_out_cases,
        ),
        training=_training_to_api(policy.training),
        lease_duration=wire.duration(policy.lease_duration.total_seconds()),
        largest_component=policy.largest_component,
        review=pb.ReviewPolicy(required=policy.review.required, allow_own=policy.review.allow_own),
        detached_lease_duration=wire.duration(policy.detached_lease_duration.total_seconds()),
    )
    match policy.sizing:
        case RoundSizes(cases=cases):
            message.sizes.cases.extend(cases)
        case GeometricSizes(first=first, factor=factor):
            message.geometric.first, message.geometric.factor = first, factor
        case MinutesBudget(minutes_per_round=minutes):
            message.minutes.minutes_per_round = minutes
    return message


def policy_from_api(message: pb.Policy, is_set: bool = True, current: Policy | None = None) -> Policy:
    """The policy; without a message (`is_set` False) all of it is default.

    What came to the API later keeps its `current` value where it is not set: a client that does not know of it
    must not undo it.

    proto3 does not tell an unset number from 0, so 0 is the default where 0 makes no sense, as it does for
    sizes, shares and case counts. A promotion policy that is there is taken as it is: its margin may be 0.
    """
    default = Policy()
    if not is_set:
        return default
    later = current or default
    return Policy(
        sizing=_sizing(message, default.sizing),
        ordering=_word(OrderingName, pb.Ordering, message.ordering, "ORDERING_", default.ordering),
        candidate_pool=message.candidate_pool,
        held_out=_held_out(message.held_out, default.held_out, message.HasField("held_out")),
        promotion=_promotion(message, default.promotion),
        training=_training(message, default.training, later.training),
        lease_duration=_duration(message, "lease_duration", default.lease_duration),
        largest_component=(
            message.largest_component if message.HasField("largest_component") else default.largest_component
        ),
        review=_review(message, later.review),
        detached_lease_duration=_duration(message, "detached_lease_duration", later.detached_lease_duration),
    )


def _sizing(message: pb.Policy, default: Sizing) -> Sizing:
    match message.WhichOneof("sizing"):
        case "sizes":
            return RoundSizes(cases=tuple(message.sizes.cases))
        case "geometric":
            geometric = GeometricSizes()
            return GeometricSizes(
                first=message.geometric.first or geometric.first,
                factor=message.geometric.factor or geometric.factor,
            )
        case "minutes":
            return MinutesBudget(minutes_per_round=message.minutes.minutes_per_round)
        case _:
            return default


def _held_out(message: pb.HeldOutPolicy, default: HeldOutPolicy, is_set: bool) -> HeldOutPolicy:
    if not is_set:
        return default
    size = message.WhichOneof("size")
    schedule = _word(HeldOutSchedule, pb.HeldOutSchedule, message.schedule, "HELD_OUT_SCHEDULE_", default.schedule)
    return HeldOutPolicy(
        fraction=message.fraction if size == "fraction" else (default.fraction if size is None else None),
        number=message.number if size == "number" else None,
        schedule=schedule,
        share_of_round=message.share_of_round or default.share_of_round,
    )


def _held_out_to_api(held_out: HeldOutPolicy) -> pb.HeldOutPolicy:
    message = pb.HeldOutPolicy(
        schedule=wire.number_of(pb.HeldOutSchedule, held_out.schedule, "HELD_OUT_SCHEDULE_"),
        share_of_round=held_out.share_of_round,
    )
    if held_out.number is not None:
        message.number = held_out.number
    elif held_out.fraction is not None:
        message.fraction = held_out.fraction
    return message


def _promotion(message: pb.Policy, default: PromotionPolicy) -> PromotionPolicy:
    if not message.HasField("promotion"):
        return default
    return PromotionPolicy(
        margin_dice=message.promotion.margin_dice,
        min_held_out_cases=message.promotion.min_held_out_cases or default.min_held_out_cases,
    )


def _training(message: pb.Policy, default: TrainingPolicy, later: TrainingPolicy) -> TrainingPolicy:
    training = message.training
    is_set = message.HasField("training")
    return TrainingPolicy(
        preset=training.preset or default.preset,
        recipe=training.recipe or default.recipe,
        seed=training.seed if is_set else default.seed,
        window=_window(training.window) if training.HasField("window") else later.window,
        gpu_seconds_budget=(
            training.gpu_seconds_budget if training.HasField("gpu_seconds_budget") else later.gpu_seconds_budget
        ),
    )


def _window(message: common_pb2.TrainingWindow) -> TrainingWindow | None:
    """None for an empty one: at any time."""
    if message == common_pb2.TrainingWindow():
        return None
    name = "policy.training.window.days"
    days = (wire.word_of(Weekday, common_pb2.Weekday, day, name, "WEEKDAY_") for day in message.days)
    return TrainingWindow(
        days=tuple(dict.fromkeys(days)), start=message.start, end=message.end, time_zone=message.time_zone
    )


def _training_to_api(training: TrainingPolicy) -> pb.TrainingPolicy:
    return pb.TrainingPolicy(
        preset=training.preset,
        recipe=training.recipe,
        seed=training.seed,
        window=None if training.window is None else wire.window_to_api(training.window),
        gpu_seconds_budget=training.gpu_seconds_budget,
    )


def _review(message: pb.Policy, default: ReviewPolicy) -> ReviewPolicy:
    if not message.HasField("review"):
        return default
    return ReviewPolicy(required=message.review.required, allow_own=message.review.allow_own)


def _duration(message: pb.Policy, name: str, default: timedelta) -> timedelta:
    if not message.HasField(name):  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
        return default
    return wire.span(getattr(message, name), f"policy.{name}")


def _word(words: type[E], api_enum: Any, number: int, prefix: str, default: E) -> E:
    """The default for an unspecified one; InvalidInput for an unknown one."""
    if number == 0:
        return default
    return wire.word_of(words, api_enum, number, f"policy.{prefix.lower().rstrip('_')}", prefix)
