"""The policy: how rounds are sized, how cases are ordered, when a model is promoted."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Final
from zoneinfo import ZoneInfo

from rekindle.errors import FieldViolation, InvalidInput
from rekindle.vocabulary import ZERO_IS_UNSET, TrainingWindow

from rekindle_scheduler.domain.enums import HeldOutSchedule
from rekindle_scheduler.domain.orderings import OrderingName

#: Metadata of a field that the API got later: an update that leaves it unset keeps it, as an older client must not
#: undo what it does not know.
KEPT: Final = {"kept": True}
#: Metadata of a field that the release before does not know: it is stored only once it differs from its default, so
#: that the release before can read the policy as long as nobody uses the field.
LATER: Final = {**KEPT, "later": True}

_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
MAX_CASES: Final = 10_000_000
MAX_MINUTES: Final = 100_000.0
#: Largest seed: a round's run is seeded with seed * 1000 + round, which has to fit 63 bits.
MAX_SEED: Final = 2**31 - 1
RECIPES: Final = ("paper", "default")
MIN_LEASE: Final = timedelta(minutes=1)
MAX_LEASE: Final = timedelta(days=30)


@dataclass(frozen=True, kw_only=True)
class RoundSizes:
    """Cases per round, in order; the last size repeats."""

    cases: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class GeometricSizes:
    """Round k takes first * factor ** (k - 1) cases, rounded down.

    The defaults are 15 cases, the paper's first round, doubling.
    """

    first: int = field(default=15, metadata=ZERO_IS_UNSET)
    factor: float = field(default=2.0, metadata=ZERO_IS_UNSET)


@dataclass(frozen=True, kw_only=True)
class MinutesBudget:
    """As many of the first cases of the ordering as fit the annotators' minutes; at least one."""

    minutes_per_round: float


Sizing = RoundSizes | GeometricSizes | MinutesBudget


@dataclass(frozen=True, kw_only=True)
class HeldOutPolicy:
    """Which cases are kept for evaluation, and when they are labelled. Either fraction or number is set."""

    #: Share of the groups, decided per group key when a case is registered; None when a number is set.
    fraction: float | None = None
    #: Number of cases, drawn when registration is closed; None when a fraction is set.
    number: int | None = None
    schedule: HeldOutSchedule = HeldOutSchedule.INTERLEAVED
    #: Largest share of a round, for INTERLEAVED.
    share_of_round: float = field(default=0.34, metadata=ZERO_IS_UNSET)


@dataclass(frozen=True, kw_only=True)
class PromotionPolicy:
    """When a candidate serves."""

    #: Dice by which a candidate may at most be worse than the serving version, per organ.
    margin_dice: float = 0.02
    #: Number of labelled held-out cases below which promotion goes by the prequential Dice.
    min_held_out_cases: int = field(default=2, metadata=ZERO_IS_UNSET)


@dataclass(frozen=True, kw_only=True)
class TrainingPolicy:
    """How models are trained; the seed is the project's source of randomness everywhere."""

    #: Networks and length of training, by a preset of the trainer.
    preset: str = field(default="cpu", metadata=ZERO_IS_UNSET)
    recipe: str = field(default="default", metadata=ZERO_IS_UNSET)
    seed: int = 0
    #: Hours in which training may run; None for any time.
    window: TrainingWindow | None = field(default=None, metadata=LATER)
    #: GPU seconds that all training of the project may take; 0 for as many as it takes.
    gpu_seconds_budget: float = field(default=0.0, metadata=LATER)


@dataclass(frozen=True, kw_only=True)
class ReviewPolicy:
    """Whether labels count at once, and who may accept them."""

    #: Whether every label waits until a reviewer accepts it.
    required: bool = False
    #: Whether reviewers may review their own labels; without a required review they may anyway.
    allow_own: bool = False


@dataclass(frozen=True, kw_only=True)
class Policy:
    """All of a project's rules, with the defaults of what a client leaves unset."""

    sizing: Sizing = field(default_factory=GeometricSizes)
    ordering: OrderingName = OrderingName.EASY_FIRST
    #: Number of cases, in order, that are predicted before a round opens; 0 predicts all of them first.
    candidate_pool: int = 0
    held_out: HeldOutPolicy = field(default_factory=lambda: HeldOutPolicy(fraction=0.1))
    promotion: PromotionPolicy = field(default_factory=PromotionPolicy)
    training: TrainingPolicy = field(default_factory=TrainingPolicy)
    lease_duration: timedelta = timedelta(hours=1)
    #: Whether coarse labels keep the largest component per organ.
    largest_component: bool = True
    review: ReviewPolicy = field(default_factory=ReviewPolicy, metadata=KEPT)
    #: Length of the leases of a detached session, which is worked on offline.
    detached_lease_duration: timedelta = field(default=timedelta(days=7), metadata=KEPT)


def validate_policy(policy: Policy) -> None:
    """InvalidInput with one violation per wrong field, each named by its path from ``policy`` on."""
    violations = [
        *_sizing_violations(policy.sizing),
        *_held_out_violations(policy.held_out),
        *_between("policy.candidate_pool", policy.candidate_pool, 0, MAX_CASES),
        *_between("policy.promotion.margin_dice", policy.promotion.margin_dice, 0.0, 1.0),
        *_between("policy.promotion.min_held_out_cases", policy.promotion.min_held_out_cases, 1, MAX_CASES),
        *_between("policy.training.seed", policy.training.seed, 0, MAX_SEED),
        *_training_violations(policy.training),
        *lease_violations("policy.lease_duration", policy.lease_duration),
        *lease_violations("policy.detached_lease_duration", policy.detached_lease_duration),
    ]
    if violations:
        first = violations[0]
        raise InvalidInput(f"the policy cannot be used: {first.field} {first.description}", violations=violations)


def lease_violations(field_name: str, duration: timedelta) -> list[FieldViolation]:
    """What is wrong with a lease of this length."""
    if MIN_LEASE <= duration <= MAX_LEASE:
        return []
    return [FieldViolation(field_name, "must be between 1 minute and 30 days")]


def cases_in_round(sizing: Sizing, number: int) -> int | None:
    """How many cases round `number` (from 1) takes; None when minutes decide it.

    ValueError for round 0, which hands out no case.
    """
    if number < 1:
        raise ValueError(f"round {number} takes no cases: rounds that do are numbered from 1")
    match sizing:
        case RoundSizes(cases=cases):
            return cases[min(number, len(cases)) - 1]
        case GeometricSizes(first=first, factor=factor):
            return _geometric(first, factor, number - 1)
        case MinutesBudget():
            return None


def _geometric(first: int, factor: float, exponent: int) -> int:
    try:
        grown = first * factor**exponent
    except OverflowError:
        return MAX_CASES
    return math.floor(min(grown, MAX_CASES))


def _sizing_violations(sizing: Sizing) -> list[FieldViolation]:
    match sizing:
        case RoundSizes(cases=()):
            return [FieldViolation("policy.sizes.cases", "must name at least one size")]
        case RoundSizes(cases=cases):
            sizes = enumerate(cases)
            return [v for i, n in sizes for v in _between(f"policy.sizes.cases[{i}]", n, 1, MAX_CASES)]
        case GeometricSizes(first=first, factor=factor):
            return [
                *_between("policy.geometric.first", first, 1, MAX_CASES),
                *_between("policy.geometric.factor", factor, 1.0, 100.0),
            ]
        case MinutesBudget(minutes_per_round=minutes):
            return _between("policy.minutes.minutes_per_round", minutes, 1.0, MAX_MINUTES)


def _held_out_violations(held_out: HeldOutPolicy) -> list[FieldViolation]:
    violations: list[FieldViolation] = []
    if (held_out.fraction is None) == (held_out.number is None):
        violations.append(FieldViolation("policy.held_out", "needs either a fraction or a number"))
    if held_out.fraction is not None:
        violations += _between("policy.held_out.fraction", held_out.fraction, 0.0, 0.9)
    if held_out.number is not None:
        violations += _between("policy.held_out.number", held_out.number, 0, MAX_CASES)
    return violations + _between("policy.held_out.share_of_round", held_out.share_of_round, 0.01, 0.9)


def _training_violations(training: TrainingPolicy) -> list[FieldViolation]:
    violations: list[FieldViolation] = []
    if not training.preset:
        violations.append(FieldViolation("policy.training.preset", "must name a preset of the trainer"))
    if training.recipe not in RECIPES:
        violations.append(FieldViolation("policy.training.recipe", f"must be one of {', '.join(RECIPES)}"))
    budget = training.gpu_seconds_budget
    if not (math.isfinite(budget) and budget >= 0):
        violations.append(FieldViolation("policy.training.gpu_seconds_budget", "must be 0, for no limit, or more"))
    if training.window is not None:
        violations += _window_violations("policy.training.window", training.window)
    return violations


def _window_violations(name: str, window: TrainingWindow) -> list[FieldViolation]:
    clocks = (("start", window.start), ("end", window.end))
    violations = [
        FieldViolation(f"{name}.{field_name}", 'must be a time of day as "HH:MM", such as "20:00"')
        for field_name, clock in clocks
        if not _CLOCK.fullmatch(clock)
    ]
    try:
        ZoneInfo(window.time_zone)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        violations.append(
            FieldViolation(f"{name}.time_zone", 'is no known time zone: write an IANA name, such as "Europe/Berlin"')
        )
    return violations


def _between(name: str, value: float, low: float, high: float) -> list[FieldViolation]:
    """A violation unless low <= value <= high; NaN is never between."""
    if low <= value <= high:
        return []
    return [FieldViolation(name, f"is {value:g}: must be between {low:g} and {high:g}")]
