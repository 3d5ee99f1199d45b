"""What every launcher does alike, over child processes, and what is theirs alone."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from rekindle_trainer.adapters.subprocess import SubprocessLauncher
from rekindle_trainer.ports import LaunchError, ProcessStatus
from suites.launchers import *  # noqa: F403 - the tests of the suite
from suites.launchers import CHILD, Codes, launch, wait_for


@pytest.fixture
def make_launcher(tmp_path: Path) -> Iterator[object]:
    """Launchers over the same child processes."""
    made: list[SubprocessLauncher] = []

    def make(stop_grace_s: float = 10.0, nice: int = 0) -> SubprocessLauncher:
        command = [sys.executable, "-c", CHILD, "{run_id}", "{attempt}", str(tmp_path)]
        settings = {"DATABASE_URL": "postgresql://user:secret@host/db", "OBJECTS_URL": "s3://volumes"}
        launcher = SubprocessLauncher(
            command,
            tmp_path / "logs",
            threads=3,
            nice=nice,
            stop_grace_s=stop_grace_s,
            environment={**os.environ, **{f"REKINDLE_TRAINER_{name}": value for name, value in settings.items()}},
            hand_down={"REKINDLE_TRAINER_OBJECTS_": "REKINDLE_PROCESS_OBJECTS_"},
        )
        made.append(launcher)
        return launcher

    yield make
    for launcher in made:
        for child in launcher._children.values():
            child.kill()
            child.wait()


@pytest.fixture
def codes() -> Codes:
    """A parent always learns how its child ended."""
    return lambda code, *, was_stopped: {code}


def test_how_another_ones_child_ended_is_not_known(make_launcher: Any, tmp_path: Path) -> None:
    """Only the service that started a process learns its exit code; the others see that it has ended."""
    first, second = make_launcher(), make_launcher()
    handle = launch(first, tmp_path, "run")
    second.terminate(handle)
    wait_for(lambda: not first.poll(handle).is_running)
    assert ProcessStatus(is_running=False, exit_code=None) == second.poll(handle)
    assert ProcessStatus(is_running=False, exit_code=143) == first.poll(handle)


def test_a_pid_that_was_passed_on_is_not_the_process(make_launcher: Any) -> None:
    """A handle with this test's own pid and another start time is a process that has ended, and nobody is hurt."""
    launcher = make_launcher()
    handle = f'{{"pid": {os.getpid()}, "started": {time.time() - 1e6}}}'
    assert not launcher.poll(handle).is_running
    assert not launcher.stop(handle).is_running


def test_a_child_has_a_log_and_a_session_of_its_own(make_launcher: Any, tmp_path: Path) -> None:
    """Its output, in a log of its own, shows run, attempt, threads, no database URL, and a session of its own."""
    launcher = make_launcher(nice=3)
    handle = launch(launcher, tmp_path, "run")
    assert "run 1 3 3 None True s3://volumes\n" == (tmp_path / "logs" / "run-1.log").read_text()
    process = psutil.Process(int(handle.split(":")[1].split(",")[0]))
    assert psutil.Process().nice() + 3 == process.nice() or process.nice() == 3


def test_a_command_that_does_not_exist_is_an_error_in_words(tmp_path: Path) -> None:
    """Not an exception of the operating system."""
    with pytest.raises(LaunchError, match="No such file"):
        SubprocessLauncher(["/nowhere/python"], tmp_path).launch("run", 1)
