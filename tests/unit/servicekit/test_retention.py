"""Answered requests are forgotten in time, and not before."""

from __future__ import annotations

import asyncio
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


def run_briefly(engine: sa.Engine, days: float) -> None:
    """One look, then the end."""
    workers = Workers(max_threads=1, name="test")

    async def run() -> None:
        stopping = asyncio.Event()
        task = asyncio.create_task(Retention(engine, workers, days=days)(stopping))
        await asyncio.sleep(0.2)
        stopping.set()
        await asyncio.wait_for(task, 5)

    asyncio.run(run())
    workers.close()


def test_old_answers_are_forgotten(engine: sa.Engine) -> None:
    """Those older than the days, and no others."""
    answer(engine, "old", timedelta(days=8))
    answer(engine, "new", timedelta(days=6))
    run_briefly(engine, 7)
    assert (False, True) == (known(engine, "old"), known(engine, "new"))


def test_a_database_that_is_away_stops_nothing(tmp_path: Path) -> None:
    """It is tried again later, and the service ends in an orderly way."""
    engine = make_engine(f"sqlite:///{tmp_path / 'without tables.sqlite3'}")
    run_briefly(engine, 7)
