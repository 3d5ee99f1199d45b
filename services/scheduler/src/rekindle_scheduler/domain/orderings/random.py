"""Cases in an order that means nothing, for comparison."""

from __future__ import annotations

from rekindle_scheduler.domain.draws import draw
from rekindle_scheduler.domain.records import Case


class Random:
    """By a draw from seed and image: every project with this seed and these images has the same order."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def key(self, case: Case) -> float:
        return draw(self._seed, "ordering", case.image_digest)
