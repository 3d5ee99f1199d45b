"""The gate at which predictions take turns, one slice batch at a time, by priority."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Protocol

from rekindle_servicekit.workers import Cancellation

from rekindle_inference.domain.segmentations import Priority

#: How often a paused prediction looks whether it has been called off.
_LOOK_S = 0.1


class Turn(Protocol):
    """One prediction's place at the gate."""

    def wait(self, cancellation: Cancellation) -> None:
        """Return when the next slice batch may be predicted. Cancelled, DeadlineExceeded."""
        ...


class PriorityGate:
    """Of the predictions under way in this process, those of lower priority pause while higher ones are present.

    While STAT is present nothing else moves. While ROUTINE is present, BATCH gets one slice batch after each
    `share` of ROUTINE's, so that a steady stream of ROUTINE does not stop it for ever.
    """

    def __init__(self, *, share: int = 8) -> None:
        self._share = share
        self._present: Counter[Priority] = Counter()
        #: Slice batches of ROUTINE that BATCH has let pass since its own last one.
        self._let_pass = 0
        self._changed = threading.Condition()

    @contextmanager
    def present(self, priority: Priority) -> Generator[Turn]:
        """Be at the gate, from before the first slice batch until after the last."""
        with self._changed:
            self._present[priority] += 1
        try:
            yield _Place(self, priority)
        finally:
            with self._changed:
                self._present[priority] -= 1
                self._changed.notify_all()

    def pass_through(self, priority: Priority, cancellation: Cancellation) -> None:
        """Wait for one turn of `priority`, and take it."""
        with self._changed:
            while self._must_wait(priority):
                cancellation.raise_if_set()
                self._changed.wait(_LOOK_S)
            self._count(priority)

    def _must_wait(self, priority: Priority) -> bool:
        if priority is Priority.STAT:
            return False
        if self._present[Priority.STAT]:
            return True
        if priority is Priority.ROUTINE or not self._present[Priority.ROUTINE]:
            return False
        return self._let_pass < self._share

    def _count(self, priority: Priority) -> None:
        if priority is Priority.BATCH:
            self._let_pass = 0
        elif priority is Priority.ROUTINE and self._present[Priority.BATCH]:
            self._let_pass += 1
            self._changed.notify_all()


class _Place:
    def __init__(self, gate: PriorityGate, priority: Priority) -> None:
        self._gate = gate
        self._priority = priority

    def wait(self, cancellation: Cancellation) -> None:
        self._gate.pass_through(self._priority, cancellation)
