"""Answered requests are forgotten in time, and not before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from rekindle_servicekit import idempotency
from rekindle_servicekit.database import make_engine, write
from rekindle_servicekit.principal import Principal
from rekindle_servicekit.retention import Retention
from rekindle_servicekit.workers import Workers

ALICE = Principal(issuer="test", subject="alice", display_name="Alice")


def answer(engine: sa.Engine, name: str, age: timedelta) -> None:
    with write(engine) as connection:
        idempotency.store(connection, ALICE, "Method", name, "digest", b"answer", now=datetime.now(UTC) - age)


def known(engine: sa.Engine, name: str) -> bool:
    with write(engine) as connection:
        return idempotency.remember(connection, ALICE, "Method", name, "digest") is not None


@pytest.fixture
def engine(tmp_path: Path) -> sa.Engine:
    engine = make_engine(f"sqlite:///{tmp_path / 'state.sqlite3'}")
    metadata = sa.MetaData()
    idempotency.define_requests(metadata)
    metadata.create_all(engine)
    return engine


async def _until(condition: Callable[[], bool]) -> None:
    """Wait for an event that the test has no bell for; the bound only keeps a broken loop from hanging."""
    async with asyncio.timeout(60):
        while not condition():
            await asyncio.sleep(0.01)


def run_until(engine: sa.Engine, condition: Callable[[], bool], *, days: float = 7, every_s: float = 3600.0) -> None:
    """Forget in the background until the condition holds, then end in an orderly way."""
    workers = Workers(max_threads=1, name="test")

    async def run() -> None:
        stopping = asyncio.Event()
        task = asyncio.create_task(Retention(engine, workers, days=days, every_s=every_s)(stopping))
        await _until(condition)
        stopping.set()
        await asyncio.wait_for(task, 60)

    asyncio.run(run())
    workers.close()


def test_old_answers_are_forgotten(engine: sa.Engine) -> None:
    """Those older than the days, and no others."""
    answer(engine, "old", timedelta(days=8))
    answer(engine, "new", timedelta(days=6))
    run_until(engine, lambda: not known(engine, "old"))
    assert known(engine, "new")


def test_a_database_that_is_away_is_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A look that fails is logged and ends nothing: once the tables are there, old answers are forgotten."""
    engine = make_engine(f"sqlite:///{tmp_path / 'without tables.sqlite3'}")
    metadata = sa.MetaData()
    idempotency.define_requests(metadata)

    def has_failed_and_forgotten() -> bool:
        failures = [record for record in caplog.records if getattr(record, "action", "") == "requests.error"]
        if not failures:
            return False
        if not sa.inspect(engine).has_table("requests"):
            metadata.create_all(engine)
            answer(engine, "old", timedelta(days=8))
        return not known(engine, "old")

    run_until(engine, has_failed_and_forgotten, every_s=0.01)
