"""The cases that the model is least sure of first: what active learning usually does."""

from __future__ import annotations

from statistics import fmean

from rekindle_scheduler.domain.records import Case


class Uncertainty:
    """By mean soft Dice confidence over the organs, lowest first; an organ that is not found counts as 0."""

    def __init__(self, seed: int) -> None:
        del seed

    def key(self, case: Case) -> float:
        if case.coarse_label is None or not case.coarse_label.quality:
            return float("inf")
        return fmean(organ.soft_dice_confidence or 0.0 for organ in case.coarse_label.quality)
