"""Cases in the order in which annotators get them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Protocol

from rekindle_scheduler.domain.orderings import ORDERINGS
from rekindle_scheduler.domain.records import Case
from rekindle_scheduler.domain.words import CaseMark, OrderingName

#: A person's mark outweighs every ordering.
_MARKS: Final = {CaseMark.EASY: 0, CaseMark.NONE: 1, CaseMark.PUT_OFF: 1, CaseMark.HARD: 2}


class Ordering(Protocol):
    """A way to rank cases; made anew for each ranking, from the project's seed."""

    def __init__(self, seed: int) -> None: ...

    def key(self, case: Case) -> float:
        """Lower comes first; infinity for a case about which nothing is known yet."""
        ...


def rank_cases(cases: Iterable[Case], name: OrderingName, seed: int) -> list[Case]:
    """Cases marked easy first, marked hard last, within that by the ordering, ties as registered."""
    ordering: Ordering = ORDERINGS[name](seed)
    return sorted(cases, key=lambda case: (_MARKS[case.mark], ordering.key(case), case.sequence))
