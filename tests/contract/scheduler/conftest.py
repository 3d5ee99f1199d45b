"""The scheduler's state on every database that it runs on, with a clock that stands still."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from rekindle_scheduler.state import State, open_state
from scheduler_rows import Clock, add_project, migrated
from servers.fixtures import MakeDatabase


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(make_database: MakeDatabase, clock: Clock) -> Iterator[State]:
    store = open_state(make_database(migrated), clock)
    add_project(store)
    yield store
    store.close()
