"""A launcher for one machine: each attempt is a child process in a session of its own."""

from __future__ import annotations

import json
import logging
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import psutil

from rekindle_trainer.ports import LaunchError, ProcessStatus

_log = logging.getLogger(__name__)

#: Marks a child, so that it is found also by a service that never learnt its pid.
MARKER: Final = "REKINDLE_TRAINING_ATTEMPT"
#: Settings of the service, among them the database's password, are none of the child's business.
_OWN_PREFIX: Final = "REKINDLE_"
_POLL_S: Final = 0.05
#: A start time is computed from the time of boot, which moves a little as the clock is set right.
_START_TOLERANCE_S: Final = 2.0


class SubprocessLauncher:
    """Starts `command`, whose arguments ``{run_id}`` and ``{attempt}`` stand for the attempt's own.

    A child survives this process and is found again by its pid and start time, so a database with handles of
    this launcher belongs to one machine. Of the service's own settings a child sees only those whose names begin
    as `hand_down` says, under the beginning that it says instead.
    Output goes to ``<run_id>-<attempt>.log`` below `log_folder`.
    """

    def __init__(
        self,
        command: Sequence[str],
        log_folder: Path,
        *,
        threads: int = 1,
        nice: int = 0,
        stop_grace_s: float = 20.0,
        environment: Mapping[str, str] | None = None,
        hand_down: Mapping[str, str] | None = None,
        gpus: int = 0,
    ) -> None:
        self._command = tuple(command)
        self._log_folder = log_folder
        self._threads = threads
        self._nice = nice
        self._stop_grace_s = stop_grace_s
        self._environment = dict(os.environ if environment is None else environment)
        self._hand_down = dict(hand_down or {})
        self._gpus = gpus
        #: Children of this very process, which alone may learn their exit codes.
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    @property
    def gpus(self) -> int:
        return self._gpus

    def launch(self, run_id: str, attempt: int) -> str:
        values = {"{run_id}": run_id, "{attempt}": str(attempt)}
        command = [values.get(part, part) for part in self._command]
        log_path = self._log_folder / f"{run_id}-{attempt}.log"
        try:
            self._log_folder.mkdir(parents=True, exist_ok=True)
            with log_path.open("ab") as output:
                child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                    env=self._child_environment(run_id, attempt),
                )
        except OSError as error:
            raise LaunchError(error.strerror or type(error).__name__) from error
        handle = self._handle(child)
        self._children[handle] = child
        _log.info("started attempt %d as process %d", attempt, child.pid, extra={"action": "run.launched"})
        return handle

    def find(self, run_id: str, attempt: int) -> str | None:
        mark = f"{run_id}/{attempt}"
        for process in psutil.process_iter():
            with suppress(psutil.Error, OSError):
                # Children of the child inherit the mark; the process itself leads its session.
                is_marked = process.environ().get(MARKER) == mark
                if is_marked and os.getsid(process.pid) == process.pid:
                    return _format_handle(process.pid, process.create_time())
        return None

    def poll(self, handle: str) -> ProcessStatus:
        child = self._children.get(handle)
        if child is not None:
            code = child.poll()
            return ProcessStatus(is_running=code is None, exit_code=code)
        return ProcessStatus(is_running=_find_process(handle) is not None)

    def terminate(self, handle: str) -> None:
        if self.poll(handle).is_running and (process := _find_process(handle)) is not None:
            with suppress(psutil.NoSuchProcess):
                process.terminate()

    def stop(self, handle: str) -> ProcessStatus:
        self.terminate(handle)
        status = self._wait(handle, self._stop_grace_s)
        # Whatever it started belongs to its session and must not outlive it.
        _kill_group(_parse_handle(handle)[0])
        return self._wait(handle, None) if status.is_running else status

    def _wait(self, handle: str, timeout_s: float | None) -> ProcessStatus:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while (status := self.poll(handle)).is_running and (deadline is None or time.monotonic() < deadline):
            time.sleep(_POLL_S)
        return status

    def _child_environment(self, run_id: str, attempt: int) -> dict[str, str]:
        threads = str(self._threads)
        inherited = {k: v for k, v in self._environment.items() if not k.upper().startswith(_OWN_PREFIX)}
        return {
            **inherited,
            **self._handed_down(),
            MARKER: f"{run_id}/{attempt}",
            "REKINDLE_TRAINER_THREADS": threads,
            "OMP_NUM_THREADS": threads,
            "MKL_NUM_THREADS": threads,
            # Waiting threads that spin make training many times slower where cores are shared.
            "OMP_WAIT_POLICY": inherited.get("OMP_WAIT_POLICY", "PASSIVE"),
            "PYTHONUNBUFFERED": "1",
        }

    def _handed_down(self) -> dict[str, str]:
        return {
            child_prefix + name[len(own_prefix) :]: value
            for own_prefix, child_prefix in self._hand_down.items()
            for name, value in self._environment.items()
            if name.upper().startswith(own_prefix)
        }

    def _handle(self, child: subprocess.Popen[bytes]) -> str:
        try:
            process = psutil.Process(child.pid)
            # Before the child has started threads of its own, which inherit it.
            if self._nice:
                process.nice(self._nice)
            return _format_handle(child.pid, process.create_time())
        except psutil.Error:
            # Unreaped, it keeps its pid, so only a process table that cannot be read gets here.
            return _format_handle(child.pid, time.time())


def _format_handle(pid: int, started: float) -> str:
    return json.dumps({"pid": pid, "started": round(started, 2)})


def _parse_handle(handle: str) -> tuple[int, float]:
    raw = json.loads(handle)
    return int(raw["pid"]), float(raw["started"])


def _find_process(handle: str) -> psutil.Process | None:
    """The live process of a handle; None where it has ended, also where its pid has passed to another one."""
    pid, started = _parse_handle(handle)
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - started) > _START_TOLERANCE_S:
            return None
        if process.status() != psutil.STATUS_ZOMBIE:
            return process
        # A dead child of another live service is left to that service, which alone learns its exit code.
        return None if process.ppid() in (0, 1, os.getpid()) else process
    except psutil.NoSuchProcess:
        return None


def _kill_group(group: int) -> None:
    """Kill what is left of a child's session; the mark tells it from a later owner of the same number."""
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if os.getpgid(process.pid) == group and MARKER in process.environ():
                process.kill()
