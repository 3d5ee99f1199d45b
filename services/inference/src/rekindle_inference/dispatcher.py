"""The dispatcher: starts durable segmentations as workers become free, and keeps the claims on those that run."""

from __future__ import annotations

import asyncio
import logging
import time
from dataclasses import dataclass, field
from datetime import timedelta

from rekindle.errors import RekindleError
from rekindle_servicekit import context
from rekindle_servicekit.bell import Bell
from rekindle_servicekit.loops import run_until_stopped
from rekindle_servicekit.workers import Cancellation, Workers

from rekindle_inference.domain.segmentations import Priority
from rekindle_inference.usecases.predictions import Predictions
from rekindle_inference.usecases.segmentation_worker import Claim, carry_out, extend_claims, take_next

_log = logging.getLogger(__name__)

#: Claims are extended this many times before they would run out.
_EXTENSIONS = 4
_LONGEST_INTERVAL_S = 1.0


@dataclass(slots=True)
class _Running:
    claim: Claim
    cancellation: Cancellation = field(default_factory=Cancellation)
    #: Slices done, slices in all.
    progress: tuple[int, int] = (0, 0)

    def on_progress(self, done: int, total: int) -> None:
        self.progress = (done, total)


class Dispatcher:
    """Carries out durable segmentations, at most `per_priority` of each priority at a time.

    Each priority has workers of its own, so that what is urgent never waits for one that a batch holds; at the
    gate the others pause. Any number of dispatchers may work off one queue.
    """

    def __init__(
        self, work: Predictions, bell: Bell, transfers: Workers, *, per_priority: int, claim_for: timedelta
    ) -> None:
        self._work = work
        self._bell = bell
        self._transfers = transfers
        self._per_priority = per_priority
        self._claim_for = claim_for
        self._interval_s = min(_LONGEST_INTERVAL_S, claim_for.total_seconds() / _EXTENSIONS)
        self._pool = Workers(max_threads=per_priority * len(Priority), name="segmentation")
        self._running: dict[str, _Running] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        #: When claims were extended last, by this process's own clock.
        self._extended_at = time.monotonic()

    async def run(self, stopping: asyncio.Event) -> None:
        """Until told to stop; what runs then goes back into the queue."""
        try:
            await run_until_stopped(self._turn, stopping, name="dispatch", interval_s=self._interval_s, bell=self._bell)
        finally:
            for running in self._running.values():
                running.cancellation.set()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _turn(self) -> None:
        """Extend the claims where it is time, whatever becomes of the look at the queue before."""
        try:
            await self._start_free()
        finally:
            if time.monotonic() - self._extended_at >= self._interval_s:
                self._extended_at = time.monotonic()
                await self._keep()

    def call_off(self, segmentation_id: str) -> None:
        """Stop working on one that was cancelled; another process finds out when it extends its claim."""
        for running in self._running.values():
            if running.claim.segmentation.segmentation_id == segmentation_id:
                running.cancellation.set()

    def close(self) -> None:
        """Once it has ended."""
        self._pool.close()

    async def _start_free(self) -> None:
        while free := [priority for priority in Priority if self._count(priority) < self._per_priority]:
            claim = await self._transfers.run_blocking(take_next, self._work, free, self._claim_for)
            if claim is None:
                return
            self._start(claim)

    def _start(self, claim: Claim) -> None:
        running = _Running(claim)
        # By claim: one that was lost may still be ending here while it has been taken up again.
        self._running[claim.token] = running
        task = asyncio.create_task(self._carry_out(running))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._bell.ring()

    async def _carry_out(self, running: _Running) -> None:
        claim = running.claim
        try:
            with context.bind(project=claim.segmentation.project_id):
                await self._pool.run_blocking(carry_out, self._work, claim, running.cancellation, running.on_progress)
        except RekindleError as error:
            # Nothing could be written: its claim runs out, and it is taken up again.
            _log.warning("a segmentation was left behind: %s", error, extra={"action": "segmentation.left"})
        except Exception:
            _log.exception("a segmentation was left behind", extra={"action": "segmentation.left"})
        finally:
            del self._running[claim.token]
            self._bell.ring()

    async def _keep(self) -> None:
        held = [(running.claim, running.progress) for running in self._running.values()]
        if not held:
            return
        for claim in await self._transfers.run_blocking(extend_claims, self._work, held, self._claim_for):
            if claim.token in self._running:
                self._running[claim.token].cancellation.set()
        self._bell.ring()

    def _count(self, priority: Priority) -> int:
        return sum(running.claim.segmentation.priority is priority for running in self._running.values())
