"""Cases as they were registered."""

from __future__ import annotations

from rekindle_scheduler.domain.records import Case


class FirstCome:
    """By the order of registration alone."""

    def __init__(self, seed: int) -> None:
        del seed

    def key(self, case: Case) -> float:
        return float(case.sequence)
