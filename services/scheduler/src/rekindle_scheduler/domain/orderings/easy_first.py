"""Easy cases first: the paper's order (Fig. 3)."""

from __future__ import annotations

from rekindle_scheduler.domain.records import Case


class EasyFirst:
    """By predicted minutes, fewest first. Minutes, not Dice: a big easy organ still takes long to correct."""

    def __init__(self, seed: int) -> None:
        del seed

    def key(self, case: Case) -> float:
        return case.coarse_label.predicted_minutes if case.coarse_label else float("inf")
