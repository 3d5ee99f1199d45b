"""The publisher: delivers labels as results, beside the rounds, whatever state a project is in."""

from __future__ import annotations

import asyncio
import logging

from rekindle.errors import Cancelled, RekindleError
from rekindle_servicekit.bell import Bell
from rekindle_servicekit.workers import Workers

from rekindle_scheduler.actions.outbox import deliver_pending
from rekindle_scheduler.ports import Inference
from rekindle_scheduler.state import State

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 0.5


class Publisher:
    """Work beside the calls. Any number of schedulers may do it: delivering twice delivers once."""

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
        self._failures = 0

    async def run(self, stopping: asyncio.Event) -> None:
        """Until told to stop; a delivery under way is finished or cut off first."""
        stop = asyncio.create_task(stopping.wait())
        try:
            while not stopping.is_set():
                heard = self._bell.count
                if await self._deliver():
                    continue
                pause_s = self._interval_s
                if self._failures:
                    heard, pause_s = self._bell.count, self._pause_s()
                ring = asyncio.create_task(self._bell.wait(heard, pause_s))
                await asyncio.wait([ring, stop], return_when=asyncio.FIRST_COMPLETED)
                ring.cancel()
        finally:
            stop.cancel()

    async def _deliver(self) -> int:
        try:
            delivered = await self._workers.run_blocking(deliver_pending, self._state, self._inference)
        except Cancelled:
            return 0
        except RekindleError as error:
            self._failures += 1
            _log.warning("results wait: %s", error, extra={"action": "publish.waiting", "reason": error.reason})
            return 0
        except Exception:
            self._failures += 1
            _log.exception("delivering results failed", extra={"action": "publish.error"})
            return 0
        self._failures = 0
        return delivered

    def _pause_s(self) -> float:
        return min(self._backoff_max_s, _FIRST_PAUSE_S * 2.0 ** min(self._failures, 30))
