"""The scheduler as a process, between inference and trainer services that keep their contracts."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from scheduler_fakes import FakeInference, FakeTrainer
from scheduler_process import Client, SchedulerProcess


@pytest.fixture
def inference() -> Iterator[FakeInference]:
    service = FakeInference()
    service.start()
    yield service
    service.stop()


@pytest.fixture
def trainer() -> Iterator[FakeTrainer]:
    service = FakeTrainer()
    service.start()
    yield service
    service.stop()


@pytest.fixture
def scheduler(tmp_path: Path, inference: FakeInference, trainer: FakeTrainer) -> Iterator[SchedulerProcess]:
    process = SchedulerProcess(tmp_path, inference, trainer)
    process.start()
    yield process
    process.stop(signal.SIGKILL)


@pytest.fixture
def client(scheduler: SchedulerProcess, inference: FakeInference) -> Client:
    return Client(scheduler, inference)
