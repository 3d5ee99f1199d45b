"""Removes abandoned uploads, now and then, for as long as the service runs."""

from __future__ import annotations

import asyncio
import logging

from rekindle_servicekit.loops import run_until_stopped
from rekindle_servicekit.workers import Workers

from rekindle_inference.usecases.sweeping import sweep_uploads
from rekindle_inference.usecases.uploads import Uploads

_log = logging.getLogger(__name__)


class Sweeper:
    """Work beside the calls: `await sweeper(stopping)` returns when the event is set."""

    def __init__(self, uploads: Uploads, workers: Workers, *, every_s: float) -> None:
        self._uploads = uploads
        self._workers = workers
        self._every_s = every_s

    async def __call__(self, stopping: asyncio.Event) -> None:
        await run_until_stopped(self._sweep, stopping, name="uploads.sweep", interval_s=self._every_s)

    async def _sweep(self) -> None:
        swept = await self._workers.run_blocking(sweep_uploads, self._uploads)
        if swept:
            _log.info("swept %d uploads", swept, extra={"action": "uploads.swept"})
