"""What every launcher does alike; the module that takes these tests defines `make_launcher` and `codes`."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import psutil
import pytest
from rekindle_trainer.ports import Launcher

#: argv: run id, attempt, folder. Does what the run's id says.
CHILD = """
import os, signal, subprocess, sys, time
run, attempt, folder = sys.argv[1:]
def stop(*_):
    sys.exit(143)
signal.signal(signal.SIGTERM, signal.SIG_IGN if run == "stubborn" else stop)
if run == "parent":
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    open(f"{folder}/grandchild", "w").write(str(child.pid))
threads = os.environ.get("REKINDLE_TRAINER_THREADS")
secret = os.environ.get("REKINDLE_TRAINER_DATABASE_URL") or os.environ.get("REKINDLE_TRAINER_OBJECTS_URL")
store = os.environ.get("REKINDLE_PROCESS_OBJECTS_URL")
with open(f"{folder}/{run}-{attempt}.told", "a") as told:
    print(run, attempt, threads, secret, file=told)
print(run, attempt, threads, os.environ.get("OMP_NUM_THREADS"), secret, os.getsid(0) == os.getpid(), store, flush=True)
open(f"{folder}/{run}-{attempt}.ready", "w").close()
if run.startswith("exit"):
    sys.exit(int(run[4:]))
time.sleep(600)
"""


class MakeLauncher(Protocol):
    """Launchers over the same processes: each is what a restarted service would have."""

    def __call__(self, stop_grace_s: float = 10.0) -> Launcher: ...


class Codes(Protocol):
    """What a launcher may say of the exit code of a process that ended so: 0 for an end by itself, else a signal."""

    def __call__(self, code: int, *, was_stopped: bool) -> set[int | None]: ...


def wait_for(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


def launch(launcher: Launcher, folder: Path, run_id: str, attempt: int = 1) -> str:
    handle = launcher.launch(run_id, attempt)
    wait_for(lambda: (folder / f"{run_id}-{attempt}.ready").exists())
    return handle


def test_a_process_runs_until_it_is_stopped(make_launcher: MakeLauncher, codes: Codes, tmp_path: Path) -> None:
    """Asked to stop it may finish in order, and once `stop` is back it is gone."""
    launcher = make_launcher()
    handle = launch(launcher, tmp_path, "run")
    wait_for(lambda: not launcher.poll(handle).reason)
    assert launcher.poll(handle).is_running
    stopped = launcher.stop(handle)
    assert not stopped.is_running
    assert stopped.exit_code in codes(143, was_stopped=True)
    assert not launcher.poll(handle).is_running


@pytest.mark.parametrize("code", [0, 1, 2])
def test_an_exit_code_is_told(make_launcher: MakeLauncher, code: int) -> None:
    """By the launcher that started the process."""
    launcher = make_launcher()
    handle = launcher.launch(f"exit{code}", 1)
    wait_for(lambda: not launcher.poll(handle).is_running)
    assert code == launcher.poll(handle).exit_code


def test_a_stubborn_process_is_killed(make_launcher: MakeLauncher, codes: Codes, tmp_path: Path) -> None:
    """It is gone once its grace is over."""
    launcher = make_launcher(stop_grace_s=1)
    handle = launch(launcher, tmp_path, "stubborn")
    assert launcher.stop(handle).exit_code in codes(-9, was_stopped=True)


def test_what_a_process_started_goes_with_it(make_launcher: MakeLauncher, tmp_path: Path) -> None:
    """Nothing of its session is left after it was stopped."""
    launcher = make_launcher()
    handle = launch(launcher, tmp_path, "parent")
    grandchild = int((tmp_path / "grandchild").read_text())
    launcher.stop(handle)

    def is_gone() -> bool:
        return not psutil.pid_exists(grandchild) or psutil.Process(grandchild).status() == "zombie"

    wait_for(is_gone)


def test_another_launcher_follows_the_same_process(make_launcher: MakeLauncher, tmp_path: Path) -> None:
    """By the handle alone, as after a restart."""
    first, second = make_launcher(), make_launcher()
    handle = launch(first, tmp_path, "run")
    assert second.poll(handle).is_running
    second.terminate(handle)
    wait_for(lambda: not first.poll(handle).is_running)
    assert not second.poll(handle).is_running


def test_a_process_is_found_by_run_and_attempt(make_launcher: MakeLauncher, tmp_path: Path) -> None:
    """Without a handle; other attempts of the run and processes that were stopped are not taken for it."""
    first, second = make_launcher(), make_launcher()
    handle = launch(first, tmp_path, "parent", attempt=2)
    assert handle == second.find("parent", 2)
    assert second.find("parent", 1) is None
    first.stop(handle)
    assert second.find("parent", 2) is None


def test_a_process_gets_its_threads_and_none_of_the_services_secrets(
    make_launcher: MakeLauncher, tmp_path: Path
) -> None:
    """It is told run, attempt and threads, and not the database's password."""
    launch(make_launcher(), tmp_path, "run")
    assert "run 1 3 None\n" == (tmp_path / "run-1.told").read_text()
