"""Networks of pods: a namespace for each, and lines between them that are made by nobody but this process."""

from __future__ import annotations

import ctypes
import fcntl
import itertools
import socket
import struct
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

_Result = TypeVar("_Result")
_LIBC = ctypes.CDLL(None, use_errno=True)
_CLONE_NEWNET = 0x40000000
_SIOCSIFFLAGS, _UP_AND_RUNNING = 0x8914, 0x1 | 0x40
_NUMBERS = itertools.count(1)


class Network:
    """The network of one pod: loopback alone, on which it has an address that is not 127.0.0.1."""

    def __init__(self) -> None:
        number = next(_NUMBERS)
        self.address = f"127.1.{number // 250}.{number % 250 + 1}"
        # As a pod's "pause": it holds the namespace while containers come and go.
        self._pause = subprocess.Popen(
            ["setpriv", "--pdeathsig", "KILL", "--", "unshare", "--net", "sleep", "infinity"], stdin=subprocess.DEVNULL
        )
        self._wait_until_apart()
        self.inside(_bring_up)

    @property
    def pid(self) -> int:
        """A process inside."""
        return self._pause.pid

    def inside(self, make: Callable[[], _Result]) -> _Result:
        """What `make` returns inside; sockets belong to the network in which they were made. Its OSError."""
        results: list[_Result] = []
        errors: list[OSError] = []

        def run() -> None:
            try:
                with Path(f"/proc/{self.pid}/ns/net").open() as namespace:
                    if _LIBC.setns(namespace.fileno(), _CLONE_NEWNET) != 0:
                        raise OSError(ctypes.get_errno(), "setns")
                results.append(make())
            except OSError as error:
                errors.append(error)

        # The namespace is the thread's, and ends with it.
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if errors:
            raise errors[0]
        return results[0]

    def listen(self, address: str, port: int) -> socket.socket:
        return self.inside(lambda: socket.create_server((address, port)))

    def connect(self, port: int) -> socket.socket:
        """To what listens on the pod's own address, as from outside."""
        return self.connect_to(self.address, port)

    def connect_to(self, address: str, port: int) -> socket.socket:
        """As the pod itself would."""
        return self.inside(lambda: socket.create_connection((address, port), timeout=5))

    def close(self) -> None:
        self._pause.kill()
        self._pause.wait()

    def _wait_until_apart(self) -> None:
        deadline = time.monotonic() + 10
        here = Path("/proc/self/ns/net").readlink()
        while Path(f"/proc/{self.pid}/ns/net").readlink() == here:
            assert time.monotonic() < deadline, "no network namespace"
            time.sleep(0.005)


def _bring_up() -> None:
    with socket.socket() as any_socket:
        fcntl.ioctl(any_socket, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _UP_AND_RUNNING))
