"""What every launcher does alike."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from rekindle_trainer.adapters.subprocess import SubprocessLauncher
from rekindle_trainer.ports import Launcher, LaunchError, ProcessStatus

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
print(run, attempt, threads, os.environ["OMP_NUM_THREADS"], secret, os.getsid(0) == os.getpid(), store, flush=True)
open(f"{folder}/{run}-{attempt}.ready", "w").close()
if run.startswith("exit"):
    sys.exit(int(run[4:]))
time.sleep(600)
"""

MakeLauncher = Callable[..., Launcher]


def wait_for(condition: Callable[[], object], timeout_s: float = 20.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@pytest.fixture
def make_launcher(tmp_path: Path) -> Iterator[MakeLauncher]:
    """Launchers over the same processes: each is what a restarted service would have. A new launcher, a line here."""
    made: list[SubprocessLauncher] = []

    def make(stop_grace_s: float = 10.0, nice: int = 0) -> Launcher:
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


def launch(launcher: Launcher, folder: Path, run_id: str, attempt: int = 1) -> str:
    handle = launcher.launch(run_id, attempt)
    wait_for(lambda: (folder / f"{run_id}-{attempt}.ready").exists())
    return handle


def test_a_process_runs_until_it_is_stopped(make_launcher: MakeLauncher, tmp_path: Path) -> None:
    """Asked to stop it may finish in order, and its exit code is known."""
    launcher = make_launcher()
    handle = launch(launcher, tmp_path, "run")
    assert ProcessStatus(is_running=True) == launcher.poll(handle)
    assert ProcessStatus(is_running=False, exit_code=143) == launcher.stop(handle)
    assert ProcessStatus(is_running=False, exit_code=143) == launcher.poll(handle)


@pytest.mark.parametrize("code", [0, 1, 2])
def test_an_exit_code_is_told(make_launcher: MakeLauncher, code: int) -> None:
    """By the launcher that started the process."""
    launcher = make_launcher()
    handle = launcher.launch(f"exit{code}", 1)
    wait_for(lambda: not launcher.poll(handle).is_running)
    assert code == launcher.poll(handle).exit_code


def test_a_stubborn_process_is_killed(make_launcher: MakeLauncher, tmp_path: Path) -> None:
    """It is gone once its grace is over."""
    launcher = make_launcher(stop_grace_s=0.2)
    handle = launch(launcher, tmp_path, "stubborn")
    assert -signal.SIGKILL == launcher.stop(handle).exit_code


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
    """By the handle alone, as after a restart; how it ended is then not known."""
    first, second = make_launcher(), make_launcher()
    handle = launch(first, tmp_path, "run")
    assert second.poll(handle).is_running
    second.terminate(handle)
    wait_for(lambda: not first.poll(handle).is_running)
    assert ProcessStatus(is_running=False, exit_code=None) == second.poll(handle)


def test_a_process_is_found_by_run_and_attempt(make_launcher: MakeLauncher, tmp_path: Path) -> None:
    """Without a handle; other attempts of the run and processes that have ended are not taken for it."""
    first, second = make_launcher(), make_launcher()
    handle = launch(first, tmp_path, "parent", attempt=2)
    assert handle == second.find("parent", 2)
    assert second.find("parent", 1) is None
    first.stop(handle)
    assert second.find("parent", 2) is None


def test_a_pid_that_was_passed_on_is_not_the_process(make_launcher: MakeLauncher) -> None:
    """A handle with this test's own pid and another start time is a process that has ended, and nobody is hurt."""
    launcher = make_launcher()
    handle = f'{{"pid": {os.getpid()}, "started": {time.time() - 1e6}}}'
    assert not launcher.poll(handle).is_running
    assert not launcher.stop(handle).is_running


def test_a_child_gets_its_threads_and_none_of_the_services_secrets(make_launcher: MakeLauncher, tmp_path: Path) -> None:
    """Its output, in a log of its own, shows run, attempt, threads, no database URL, its session, the store."""
    launcher = make_launcher(nice=3)
    handle = launch(launcher, tmp_path, "run")
    assert "run 1 3 3 None True s3://volumes\n" == (tmp_path / "logs" / "run-1.log").read_text()
    process = psutil.Process(int(handle.split(":")[1].split(",")[0]))
    assert psutil.Process().nice() + 3 == process.nice() or process.nice() == 3


def test_a_command_that_does_not_exist_is_an_error_in_words(tmp_path: Path) -> None:
    """Not an exception of the operating system."""
    with pytest.raises(LaunchError, match="No such file"):
        SubprocessLauncher(["/nowhere/python"], tmp_path).launch("run", 1)
