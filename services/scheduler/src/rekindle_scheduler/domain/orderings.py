"""Orderings: rules for the order in which annotators get cases.

A new ordering is a function and its word here, and its number in the API.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum
from statistics import fmean
from typing import Final

from rekindle_scheduler.domain.cases import Case
from rekindle_scheduler.domain.random_draws import draw


class OrderingName(StrEnum):
    """Words of the orderings, as the API has them."""

    EASY_FIRST = "easy_first"
    HARD_FIRST = "hard_first"
    RANDOM = "random"
    UNCERTAINTY = "uncertainty"
    FIRST_COME = "first_come"


#: Key of a case under the project's seed: lower comes first, infinity for a case about which nothing is known yet.
Key = Callable[[Case, int], float]


def easy_first(case: Case, _seed: int) -> float:
    """Fewest predicted minutes: the paper's order (Fig. 3). A big easy organ has a good Dice and still takes long."""
    return case.coarse_label.predicted_minutes if case.coarse_label else float("inf")


def hard_first(case: Case, _seed: int) -> float:
    """Most predicted minutes: the paper's counterpart, for comparison."""
    return -case.coarse_label.predicted_minutes if case.coarse_label else float("inf")


def random(case: Case, seed: int) -> float:
    """A draw from seed and image: projects with the same seed and images have the same order."""
    return draw(seed, "ordering", case.image_digest)


def uncertainty(case: Case, _seed: int) -> float:
    """Lowest mean soft Dice confidence over the organs, as in active learning; an organ not found counts as 0."""
    if case.coarse_label is None or not case.coarse_label.quality:
        return float("inf")
    return fmean(organ.soft_dice_confidence or 0.0 for organ in case.coarse_label.quality)


def first_come(case: Case, _seed: int) -> float:
    """The order of registration."""
    return float(case.sequence)


ORDERINGS: Final[Mapping[OrderingName, Key]] = {
    OrderingName.EASY_FIRST: easy_first,
    OrderingName.HARD_FIRST: hard_first,
    OrderingName.RANDOM: random,
    OrderingName.UNCERTAINTY: uncertainty,
    OrderingName.FIRST_COME: first_come,
}
