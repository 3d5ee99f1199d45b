"""A server as a process of its own, that can be stopped, killed and started again on the same port."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Self

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


def free_port() -> int:
    """A TCP port of the loopback interface that nobody listens on at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(port: int) -> bool:
    """Whether somebody listens on this port of the loopback interface."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class ServerProcess(ABC):
    """One server below `folder`, on one port of the loopback interface; as a context manager it runs inside."""

    name = "server"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        #: How long the last start took.
        self.seconds_to_ready = 0.0
        self._process: subprocess.Popen[bytes] | None = None
        self._tries_left = 3

    @abstractmethod
    def command(self) -> list[str]:
        """What is run."""

    @abstractmethod
    def is_ready(self) -> bool:
        """Whether it serves; any OSError counts as not yet."""

    def environment(self) -> dict[str, str]:
        """What it sees besides this process's environment."""
        return {}

    def account(self) -> str | None:
        """Who runs it; None for whoever runs the tests."""
        return None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """Run it (again) and wait until it serves; AssertionError with the end of its log."""
        began = time.monotonic()
        while True:
            self._run()
            try:
                self.wait_ready()
                break
            except AssertionError:
                # Somebody else may have taken the port since it was looked for; once it has served it stays.
                if self._process is None or self._process.poll() is None or self._tries_left == 0:
                    raise
                self._tries_left -= 1
                self.port = free_port()
        self._tries_left = 0
        self.seconds_to_ready = time.monotonic() - began

    def _run(self) -> None:
        account = self.account()
        with self._log().open("ab") as log:
            self._process = subprocess.Popen(
                [*_dies_with_its_parent(), *self.command()],
                cwd=self.folder,
                env={**os.environ, **self.environment()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                user=account,
                group=None if account is None else _group_of(account),
                extra_groups=None if account is None else [],
            )

    def wait_ready(self) -> None:
        """Return once it serves."""
        assert self._process is not None
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if self.is_ready():
                    return
            except OSError:
                pass
            time.sleep(0.02)
        raise AssertionError(f"{self.name} does not serve; the end of its log:\n{self.log_tail()}")

    def kill(self) -> None:
        """SIGKILL to all of its processes, as if the machine lost power."""
        self._signal(signal.SIGKILL)

    def stop(self) -> None:
        """In an orderly way, by force where that takes too long."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.kill()

    stop_signal = signal.SIGTERM

    def pause(self) -> None:
        """It keeps its connections and answers nothing, until `resume`."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def log_tail(self, lines: int = 20) -> str:
        return "\n".join(self._log().read_text(errors="replace").splitlines()[-lines:])

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _log(self) -> Path:
        return self.folder / f"{self.name}.log"

    def _signal(self, number: int) -> None:
        if self._process is None or self._process.poll() is not None:
            return
        os.killpg(self._process.pid, number)
        self._process.wait(STOP_TIMEOUT_S)


def _dies_with_its_parent() -> list[str]:
    """A test run that is killed cannot tidy up; the kernel then does."""
    setpriv = shutil.which("setpriv")
    return [] if setpriv is None else [setpriv, "--pdeathsig", "KILL", "--"]


def _group_of(account: str) -> int:
    import pwd

    return pwd.getpwnam(account).pw_gid
