"""Records through JSON and through protobuf."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rekindle.api.common.v1 import common_pb2
from rekindle.api.scheduler.v1 import records_pb2, scheduler_pb2
from rekindle.convert import from_proto, to_proto
from rekindle.errors import InvalidInput
from rekindle.vocabulary import (
    Digest,
    Modality,
    RunPackage,
    RunResult,
    RunState,
    TimeKind,
    TimeSegment,
    TimeSource,
    TrainingWindow,
    Weekday,
)
from rekindle_scheduler.domain.enums import HeldOutSchedule
from rekindle_scheduler.domain.ids import RunId
from rekindle_scheduler.domain.orderings import OrderingName
from rekindle_scheduler.domain.policy import (
    GeometricSizes,
    HeldOutPolicy,
    MinutesBudget,
    Policy,
    PromotionPolicy,
    ReviewPolicy,
    RoundSizes,
    TrainingPolicy,
    validate_policy,
)
from rekindle_scheduler.domain.records import TrainingRun
from rekindle_scheduler.grpc.convert import policy_from_proto, policy_to_proto
from rekindle_scheduler.state.codec import decode, encode
from rekindle_scheduler.usecases.submissions import Label

_counts = st.integers(1, 1_000_000)
_shares = st.floats(0.01, 0.9)
_sizings = st.one_of(
    st.builds(RoundSizes, cases=st.lists(_counts, min_size=1, max_size=5).map(tuple)),
    st.builds(GeometricSizes, first=_counts, factor=st.floats(1.0, 100.0)),
    st.builds(MinutesBudget, minutes_per_round=st.floats(1.0, 10_000.0)),
)
_held_out = st.one_of(
    st.builds(
        HeldOutPolicy,
        fraction=st.floats(0.0, 0.9),
        schedule=st.sampled_from(HeldOutSchedule),
        share_of_round=_shares,
    ),
    st.builds(HeldOutPolicy, number=st.integers(0, 1000), schedule=st.sampled_from(HeldOutSchedule)),
)
_windows = st.builds(
    TrainingWindow,
    days=st.lists(st.sampled_from(Weekday), unique=True).map(tuple),
    start=st.just("20:00"),
    end=st.just("06:30"),
    time_zone=st.sampled_from(["UTC", "Europe/Berlin"]),
)
policies = st.builds(
    Policy,
    sizing=_sizings,
    ordering=st.sampled_from(OrderingName),
    candidate_pool=st.integers(0, 1000),
    held_out=_held_out,
    promotion=st.builds(PromotionPolicy, margin_dice=st.floats(0.0, 1.0), min_held_out_cases=_counts),
    training=st.builds(
        TrainingPolicy,
        preset=st.sampled_from(["paper", "cpu"]),
        recipe=st.just("paper"),
        seed=st.integers(0, 2**31),
        window=st.none() | _windows,
        gpu_seconds_budget=st.floats(0.0, 1e9),
    ),
    lease_duration=st.integers(60, 10**6).map(lambda seconds: timedelta(seconds=seconds)),
    largest_component=st.booleans(),
    review=st.builds(ReviewPolicy, required=st.booleans(), allow_own=st.booleans()),
    detached_lease_duration=st.integers(60, 10**6).map(lambda seconds: timedelta(seconds=seconds)),
)


@given(policies)
def test_a_policy_survives_protobuf(policy: Policy) -> None:
    """What is told is what was given."""
    assert policy == policy_from_proto(records_pb2.Policy.FromString(policy_to_proto(policy).SerializeToString()))


@given(policies)
def test_a_policy_survives_json(policy: Policy) -> None:
    """What is stored is what was given."""
    assert policy == decode(Policy, encode(policy))


def test_what_was_not_stored_takes_its_default() -> None:
    """A record of an older version, without a field that came later."""
    stored = encode(Policy())
    del stored["candidate_pool"]
    assert Policy() == decode(Policy, stored)


def test_an_unset_policy_is_the_default() -> None:
    """A message without its parts gives the documented defaults."""
    assert Policy() == policy_from_proto(records_pb2.Policy())
    assert not policy_from_proto(records_pb2.Policy(largest_component=False)).largest_component


def test_a_client_that_knows_of_no_reviews_does_not_undo_them() -> None:
    """Nor the length of detached leases; a message that has them sets them."""
    current = Policy(review=ReviewPolicy(required=True), detached_lease_duration=timedelta(days=3))
    kept = policy_from_proto(records_pb2.Policy(candidate_pool=5), current=current)
    assert (current.review, timedelta(days=3), 5) == (kept.review, kept.detached_lease_duration, kept.candidate_pool)
    unset = policy_from_proto(records_pb2.Policy(review=records_pb2.ReviewPolicy()), current=current)
    assert ReviewPolicy() == unset.review


NIGHT = TrainingWindow(start="20:00", end="06:00", time_zone="Europe/Berlin")


def test_a_client_that_knows_of_no_window_does_not_undo_it() -> None:
    """Nor the budget; an empty window and a budget of 0 take them away."""
    current = Policy(training=TrainingPolicy(window=NIGHT, gpu_seconds_budget=60.0))
    old = records_pb2.Policy(training=records_pb2.TrainingPolicy(preset="cpu", recipe="paper", seed=3))
    for kept in (policy_from_proto(old, current=current), policy_from_proto(records_pb2.Policy(), current=current)):
        assert (NIGHT, 60.0) == (kept.training.window, kept.training.gpu_seconds_budget)
    old.training.window.SetInParent()
    old.training.gpu_seconds_budget = 0.0
    assert TrainingPolicy(preset="cpu", recipe="paper", seed=3) == policy_from_proto(old, current=current).training


def test_an_unused_window_leaves_no_trace_in_what_is_stored() -> None:
    """A release that knows neither window nor budget reads the policies of projects that use neither."""
    assert {"preset", "recipe", "seed"} == set(encode(Policy())["training"])
    used = encode(Policy(training=TrainingPolicy(window=NIGHT)))["training"]
    assert "20:00" == used["window"]["start"]


def test_modalities_are_stored_as_the_release_before_reads_them() -> None:
    """In lower case, at any depth; what was stored in capitals is read as well."""
    package = RunPackage(modality=Modality.MR, package_digest=Digest("a" * 64))
    result = RunResult(packages=(package,), weights_digest=Digest("b" * 64))
    stored = encode(TrainingRun(run_id=RunId("r"), state=RunState.SUCCEEDED, result=result))
    assert "mr" == stored["result"]["packages"][0]["modality"]
    assert result == decode(TrainingRun, stored).result
    stored["result"]["packages"][0]["modality"] = "MR"
    assert result == decode(TrainingRun, stored).result


def test_what_a_newer_release_has_stored_is_passed_over() -> None:
    """Fields that nobody knows here, in a record, in a record of it, and in one of several kinds of records."""
    stored = encode(Policy(sizing=GeometricSizes(first=4, factor=1.5)))
    stored["weather"] = "fair"
    stored["training"]["mood"] = {"good": True}
    stored["sizing"]["shape"] = "round"
    assert Policy(sizing=GeometricSizes(first=4, factor=1.5)) == decode(Policy, stored)


@pytest.mark.parametrize(
    ("training", "field"),
    [
        (TrainingPolicy(window=replace(NIGHT, start="8pm")), "policy.training.window.start"),
        (TrainingPolicy(window=replace(NIGHT, end="")), "policy.training.window.end"),
        (TrainingPolicy(window=replace(NIGHT, time_zone="CET+1/x")), "policy.training.window.time_zone"),
        (TrainingPolicy(window=replace(NIGHT, time_zone="/etc/localtime")), "policy.training.window.time_zone"),
        (TrainingPolicy(gpu_seconds_budget=-1.0), "policy.training.gpu_seconds_budget"),
        (TrainingPolicy(gpu_seconds_budget=float("nan")), "policy.training.gpu_seconds_budget"),
    ],
)
def test_limits_of_training_that_cannot_be_are_named(training: TrainingPolicy, field: str) -> None:
    """The one field that is wrong."""
    with pytest.raises(InvalidInput) as raised:
        validate_policy(Policy(training=training))
    assert [field] == [each.field for each in raised.value.violations]


def test_a_time_segment_survives_protobuf() -> None:
    """With its moment in UTC."""
    segment = TimeSegment(
        kind=TimeKind.READING,
        source=TimeSource.MEASURED,
        start_time=datetime(2026, 3, 2, 8, 0, 1, 500_000, tzinfo=UTC),
        active_seconds=12.5,
        tool="viewer 1.0",
    )
    assert segment == from_proto(to_proto(segment, common_pb2.TimeSegment), TimeSegment)


@pytest.mark.parametrize("status", [0, 99])
def test_an_unknown_status_names_its_field(status: int) -> None:
    """Unspecified and unknown values are refused."""
    message = scheduler_pb2.SubmitRequest(organ_states=[{"organ_id": "liver", "status": status}])  # type: ignore[list-item]
    with pytest.raises(InvalidInput) as refused:
        from_proto(message, Label)
    assert "organ_states[0].status" == refused.value.violations[0].field
