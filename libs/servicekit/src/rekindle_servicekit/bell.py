"""A bell that wakes the waiters when the state changes; all of it on one event loop."""

from __future__ import annotations

import asyncio


class Bell:
    """Rung after every change. It says that something is new, never what: a waiter reads the state."""

    def __init__(self) -> None:
        self._rung = 0
        self._changed = asyncio.Event()

    def ring(self) -> None:
        """Wake every waiter, and let a later waiter with an older count return at once."""
        self._rung += 1
        self._changed.set()
        self._changed = asyncio.Event()

    @property
    def count(self) -> int:
        """Rings so far: to be taken before reading the state, so that no change falls in between."""
        return self._rung

    async def wait(self, heard: int, timeout_s: float) -> None:
        """Return when it has rung more often than `heard`, at the latest after the time-out."""
        if self._rung > heard:
            return
        try:
            await asyncio.wait_for(self._changed.wait(), timeout_s)
        except TimeoutError:
            return

    async def wait_unless(self, stopping: asyncio.Event, heard: int, timeout_s: float) -> None:
        """As `wait`, but return at once when `stopping` is set."""
        tasks = [asyncio.ensure_future(stopping.wait()), asyncio.ensure_future(self.wait(heard, timeout_s))]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
