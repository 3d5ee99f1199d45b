"""Removes abandoned uploads, now and then, for as long as the service runs."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

from rekindle.errors import RekindleError
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
        while not stopping.is_set():
            await self._sweep()
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), self._every_s)

    async def _sweep(self) -> None:
        try:
            swept = await self._workers.run_blocking(sweep_uploads, self._uploads)
        except RekindleError as error:
            _log.warning("sweeping uploads failed: %s", error.message, extra={"action": "uploads.sweep_failed"})
        except Exception:  # it must not take the service down; the next time may go better
            _log.exception("sweeping uploads failed", extra={"action": "uploads.sweep_failed"})
        else:
            if swept:
                _log.info("swept %d uploads", swept, extra={"action": "uploads.swept"})
