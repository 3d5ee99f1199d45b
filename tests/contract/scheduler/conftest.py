"""The scheduler's state on every database that it runs on, with a clock that stands still."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rekindle_scheduler.adapters.sql.store import SqlStore, open_store
from scheduler_rows import Clock, add_project, migrated
from servers.fixtures import MakeDatabase


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(make_database: MakeDatabase, clock: Clock) -> Iterator[SqlStore]:
    store = open_store(make_database(migrated), clock)
    add_project(store)
    yield store
    store.close()
