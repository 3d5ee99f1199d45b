"""What an ordering is: a rule for the order in which annotators get cases."""

from __future__ import annotations

from typing import Protocol

from rekindle_scheduler.domain.records import Case


class Ordering(Protocol):
    """A way to rank cases; made anew for each ranking, from the project's seed."""

    def __init__(self, seed: int) -> None: ...

    def key(self, case: Case) -> float:
        """Lower comes first; infinity for a case about which nothing is known yet."""
        ...
