"""The policy: what is refused, and how rounds grow."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import pytest
from rekindle.errors import InvalidInput
from rekindle_scheduler.domain.policy import (
    MAX_CASES,
    GeometricSizes,
    HeldOutPolicy,
    MinutesBudget,
    Policy,
    PromotionPolicy,
    RoundSizes,
    TrainingPolicy,
    cases_in_round,
    validate_policy,
)


def test_defaults_are_valid_and_the_papers():
    """A policy of defaults passes, starts with 15 cases and orders easy first."""
    policy = Policy()
    validate_policy(policy)
    assert 15 == cases_in_round(policy.sizing, 1)
    assert "easy_first" == policy.ordering


@pytest.mark.parametrize(
    ("policy", "fields"),
    [
        (Policy(sizing=RoundSizes(cases=())), ["policy.sizes.cases"]),
        (Policy(sizing=RoundSizes(cases=(3, 0, -1))), ["policy.sizes.cases[1]", "policy.sizes.cases[2]"]),
        (Policy(sizing=GeometricSizes(first=0)), ["policy.geometric.first"]),
        (Policy(sizing=GeometricSizes(factor=0.5)), ["policy.geometric.factor"]),
        (Policy(sizing=GeometricSizes(factor=math.nan)), ["policy.geometric.factor"]),
        (Policy(sizing=MinutesBudget(minutes_per_round=0.0)), ["policy.minutes.minutes_per_round"]),
        (Policy(sizing=MinutesBudget(minutes_per_round=math.inf)), ["policy.minutes.minutes_per_round"]),
        (Policy(candidate_pool=-1), ["policy.candidate_pool"]),
        (Policy(held_out=HeldOutPolicy()), ["policy.held_out"]),
        (Policy(held_out=HeldOutPolicy(fraction=0.1, number=3)), ["policy.held_out"]),
        (Policy(held_out=HeldOutPolicy(fraction=1.0)), ["policy.held_out.fraction"]),
        (Policy(held_out=HeldOutPolicy(number=-1)), ["policy.held_out.number"]),
        (Policy(held_out=HeldOutPolicy(number=1, share_of_round=1.0)), ["policy.held_out.share_of_round"]),
        (Policy(promotion=PromotionPolicy(margin_dice=-0.1)), ["policy.promotion.margin_dice"]),
        (Policy(promotion=PromotionPolicy(min_held_out_cases=0)), ["policy.promotion.min_held_out_cases"]),
        (Policy(training=TrainingPolicy(preset="")), ["policy.training.preset"]),
        (Policy(training=TrainingPolicy(recipe="magic")), ["policy.training.recipe"]),
        (Policy(training=TrainingPolicy(seed=-1)), ["policy.training.seed"]),
        (Policy(lease_duration=timedelta(seconds=5)), ["policy.lease_duration"]),
    ],
)
def test_wrong_policy_is_refused_by_field(policy: Policy, fields: list[str]):
    """Each wrong part is named by its path."""
    with pytest.raises(InvalidInput) as caught:
        validate_policy(policy)
    assert fields == [violation.field for violation in caught.value.violations]


def test_all_violations_are_told_at_once():
    """Somebody who corrects a policy sees every fault in one answer."""
    wrong = replace(Policy(candidate_pool=-1), training=TrainingPolicy(seed=-1, recipe="x"))
    with pytest.raises(InvalidInput) as caught:
        validate_policy(wrong)
    assert 3 == len(caught.value.violations)


@pytest.mark.parametrize(
    ("sizing", "expected"),
    [
        (RoundSizes(cases=(3, 5, 8)), [3, 5, 8, 8, 8]),
        (GeometricSizes(first=15, factor=2.0), [15, 30, 60, 120, 240]),
        (GeometricSizes(first=5, factor=1.5), [5, 7, 11, 16, 25]),
        (GeometricSizes(first=4, factor=1.0), [4, 4, 4, 4, 4]),
        (MinutesBudget(minutes_per_round=60), [None] * 5),
    ],
)
def test_sizes_of_the_first_rounds(sizing: RoundSizes, expected: list[int | None]):
    """Lists repeat their last size, geometric sizes are rounded down, a budget leaves the number open."""
    assert expected == [cases_in_round(sizing, number) for number in range(1, 6)]


def test_growth_is_capped():
    """A round far out stays a number that a database can count."""
    assert MAX_CASES == cases_in_round(GeometricSizes(first=10, factor=100.0), 5000)


def test_round_zero_hands_out_nothing():
    """Asking for the size of the igniter's round is a mistake of the caller."""
    with pytest.raises(ValueError, match="round 0"):
        cases_in_round(GeometricSizes(), 0)


def test_defaults_are_those_of_the_documentation():
    """docs/policy.md names them; they hold for whatever a client leaves unset."""
    policy = Policy()
    assert ("cpu", "default", 0) == (policy.training.preset, policy.training.recipe, policy.training.seed)
    assert (timedelta(hours=1), timedelta(days=7)) == (policy.lease_duration, policy.detached_lease_duration)
    assert (0.02, 2) == (policy.promotion.margin_dice, policy.promotion.min_held_out_cases)
    assert (0.1, 0.34) == (policy.held_out.fraction, policy.held_out.share_of_round)
