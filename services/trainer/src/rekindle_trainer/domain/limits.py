"""When a project may train and how much: what holds its runs back, and what they have spent."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from rekindle.errors import FieldViolation

from rekindle_trainer.domain.runs import Attempt, AttemptState
from rekindle_trainer.domain.windows import OpeningTimes, window_violations


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingLimits:
    """Limits of all runs of one project."""

    #: Number that grows with every change; 0 before the first.
    version: int = 0
    #: Times at which runs may train; None: at any time.
    window: OpeningTimes | None = None
    #: Most GPU seconds of all runs together; 0: as many as it takes.
    gpu_seconds_budget: float = 0.0

    def held_reason(self, spent_gpu_seconds: float, now: datetime) -> str:
        """Why the project's runs have to wait; empty where they may run."""
        budget = self.gpu_seconds_budget
        if budget and spent_gpu_seconds >= budget:
            spent = f"{spent_gpu_seconds:.0f} of {budget:g} GPU seconds are spent"
            return f"waits for GPU time: {spent}, raise the budget in the project's policy"
        if self.window is not None and not self.window.is_open(now):
            return f"waits for its window: {self.window.opening_words(now)}"
        return ""


def gpu_seconds(attempts: Iterable[Attempt], now: datetime) -> float:
    """GPUs times seconds that each process was at work until its end, or to `now` where it has not ended.

    A process that nobody saw at work counts from its claim if it is known to have run, otherwise for nothing; one that
    nobody saw end counts until it was last seen.
    """
    return sum(attempt.gpus * _seconds(attempt, now) for attempt in attempts)


def limits_violations(field: str, limits: TrainingLimits) -> list[FieldViolation]:
    """What keeps limits from being used."""
    violations: list[FieldViolation] = []
    if limits.version < 1:
        violations.append(FieldViolation(f"{field}.version", "must be 1 or higher, and higher with every change"))
    if not (math.isfinite(limits.gpu_seconds_budget) and limits.gpu_seconds_budget >= 0):
        violations.append(FieldViolation(f"{field}.gpu_seconds_budget", "must be 0, for no limit, or more"))
    return violations + ([] if limits.window is None else window_violations(f"{field}.window", limits.window))


def _seconds(attempt: Attempt, now: datetime) -> float:
    was_seen_ending = attempt.exit_code is not None or attempt.state is AttemptState.SUCCEEDED
    end = attempt.ended_at or now
    if attempt.began_at is None:
        return max(0.0, (end - attempt.claimed_at).total_seconds()) if was_seen_ending else 0.0
    if attempt.ended_at is not None and not was_seen_ending:
        end = attempt.seen_at or end
    return attempt.worked_until(end)
