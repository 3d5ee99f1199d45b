"""Forgets answered requests that will not be sent again, for as long as a service runs."""

from __future__ import annotations

import asyncio
import logging
from datetime import timedelta

import sqlalchemy as sa

from rekindle_servicekit import idempotency
from rekindle_servicekit.database import database_now, write
from rekindle_servicekit.loops import run_until_stopped
from rekindle_servicekit.workers import Workers

_log = logging.getLogger(__name__)


class Retention:
    """Background work: `await retention(stopping)` returns when the event is set."""

    def __init__(self, engine: sa.Engine, workers: Workers, *, days: float, every_s: float = 3600.0) -> None:
        self._engine = engine
        self._workers = workers
        self._kept = timedelta(days=days)
        self._every_s = every_s

    async def __call__(self, stopping: asyncio.Event) -> None:
        await run_until_stopped(self._forget, stopping, name="requests", interval_s=self._every_s)

    async def _forget(self) -> None:
        count = await self._workers.run_blocking(self._delete)
        if count:
            _log.info("forgot %d answered requests", count, extra={"action": "requests.forgotten"})

    def _delete(self) -> int:
        with write(self._engine) as connection:
            return idempotency.forget(connection, before=database_now(connection) - self._kept)
