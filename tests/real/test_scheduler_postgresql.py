"""The scheduler as a process, all of its service tests, on PostgreSQL."""

from __future__ import annotations

import importlib.util
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from scheduler_fakes import FakeInference, FakeTrainer
from scheduler_process import SchedulerProcess
from servers.postgresql import PostgresqlServer


def _load(path: Path) -> ModuleType:
    specification = importlib.util.spec_from_file_location("scheduler_service_suite", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


_FOLDER = Path(__file__).parents[1] / "integration" / "scheduler"
_suite: Any = _load(_FOLDER / "test_service.py")
_fixtures: Any = _load(_FOLDER / "conftest.py")
inference, trainer, client = _fixtures.inference, _fixtures.trainer, _fixtures.client
#: Those that need no scheduler need no database either.
globals().update({name: test for name, test in vars(_suite).items() if name.startswith("test_")})


@pytest.fixture
def scheduler(
    tmp_path: Path, inference: FakeInference, trainer: FakeTrainer, postgresql: PostgresqlServer
) -> Iterator[SchedulerProcess]:
    process = SchedulerProcess(tmp_path, inference, trainer, database_url=postgresql.create_database())
    process.start()
    yield process
    process.stop(signal.SIGKILL)
