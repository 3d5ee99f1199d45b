"""Forgets answered requests that nobody will send again, for as long as a service runs."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import sqlalchemy as sa
from rekindle.errors import RekindleError

from rekindle_servicekit import idempotency
from rekindle_servicekit.database import write
from rekindle_servicekit.workers import Workers

_log = logging.getLogger(__name__)


class Retention:
    """Work beside the calls: `await retention(stopping)` returns when the event is set."""

    def __init__(self, engine: sa.Engine, workers: Workers, *, days: float, every_s: float = 3600.0) -> None:
        self._engine = engine
        self._workers = workers
        self._kept = timedelta(days=days)
        self._every_s = every_s

    async def __call__(self, stopping: asyncio.Event) -> None:
        while not stopping.is_set():
            await self._forget()
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), self._every_s)

    async def _forget(self) -> None:
        try:
            forgotten = await self._workers.run_blocking(self._delete)
        except RekindleError as error:
            _log.warning("cannot forget old requests: %s", error.message, extra={"action": "requests.kept"})
        except Exception:  # it must not take the service down; the next time may go better
            _log.exception("cannot forget old requests", extra={"action": "requests.kept"})
        else:
            if forgotten:
                _log.info("forgot %d answered requests", forgotten, extra={"action": "requests.forgotten"})

    def _delete(self) -> int:
        with write(self._engine) as connection:
            return idempotency.forget(connection, before=datetime.now(UTC) - self._kept)
