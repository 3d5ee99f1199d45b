"""The trainer as a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from trainer_process import TrainerProcess


@pytest.fixture
def trainer_settings() -> dict[str, str]:
    """What is set beyond the defaults."""
    return {}


@pytest.fixture
def trainer(tmp_path: Path, trainer_settings: dict[str, str]) -> Iterator[TrainerProcess]:
    """A service that is not started yet; at the end nothing of it is left."""
    service = TrainerProcess(tmp_path, settings=trainer_settings)
    yield service
    (tmp_path / "finish").touch()
    service.end()
    for process in service.training_processes():
        process.kill()
