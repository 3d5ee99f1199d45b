"""Hard cases first: the paper's counterpart, for comparison."""

from __future__ import annotations

from rekindle_scheduler.domain.records import Case


class HardFirst:
    """By predicted minutes, most first."""

    def __init__(self, seed: int) -> None:
        del seed

    def key(self, case: Case) -> float:
        return -case.coarse_label.predicted_minutes if case.coarse_label else float("inf")
