"""The publisher: delivers labels as results, whatever state a project is in."""

from __future__ import annotations

import asyncio

from rekindle_servicekit.bell import Bell
from rekindle_servicekit.loops import run_until_stopped
from rekindle_servicekit.workers import Workers

from rekindle_scheduler.actions.outbox import deliver_pending
from rekindle_scheduler.ports import Inference
from rekindle_scheduler.state import State


class Publisher:
    """A loop over the outbox. Any number of schedulers may run it: a second delivery changes nothing."""

    def __init__(
        self,
        state: State,
        inference: Inference,
        bell: Bell,
        workers: Workers,
        *,
        interval_s: float = 1.0,
        backoff_max_s: float = 30.0,
    ) -> None:
        self._state = state
        self._inference = inference
        self._bell = bell
        self._workers = workers
        self._interval_s = interval_s
        self._backoff_max_s = backoff_max_s

    async def run(self, stopping: asyncio.Event) -> None:
        """Deliver until told to stop; a delivery under way is finished or cut off first."""
        await run_until_stopped(
            self._deliver,
            stopping,
            name="publish",
            interval_s=self._interval_s,
            bell=self._bell,
            backoff_max_s=self._backoff_max_s,
        )

    async def _deliver(self) -> float | None:
        delivered = await self._workers.run_blocking(deliver_pending, self._state, self._inference)
        return 0 if delivered else None
