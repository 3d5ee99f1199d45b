"""A line between a client and a service that breaks, and hides for a while."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress


class BadLine:
    """Forwards TCP connections from `address` to `target`.

    Every `cut_after_bytes` bytes towards the target all connections are cut and, for `away_s`, no new ones are taken.
    Bytes that were read when the line is cut are lost.
    """

    def __init__(self, target: str, *, cut_after_bytes: int | None = None, away_s: float = 0.1) -> None:
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._cut_after_bytes = cut_after_bytes
        self._away_s = away_s
        self._lock = threading.Lock()
        self._connections: list[socket.socket] = []
        self._since_cut = 0
        self._away_until = 0.0
        #: How often it was cut, and all bytes that went towards the target.
        self.cuts, self.sent_bytes = 0, 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        self._listener.close()
        self._drop_all()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if time.monotonic() < self._away_until:
                near.close()
                continue
            far = socket.create_connection(self._target)
            with self._lock:
                self._connections += [near, far]
            threading.Thread(target=self._pump, args=(near, far, True), daemon=True).start()
            threading.Thread(target=self._pump, args=(far, near, False), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket, is_up: bool) -> None:
        with suppress(OSError):
            while data := source.recv(65_536):
                if is_up and self._is_cut(len(data)):
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def _is_cut(self, size: int) -> bool:
        with self._lock:
            self.sent_bytes += size
            self._since_cut += size
            if self._cut_after_bytes is None or self._since_cut < self._cut_after_bytes:
                return False
            self._since_cut, self.cuts = 0, self.cuts + 1
            self._away_until = time.monotonic() + self._away_s
        self._drop_all()
        return True

    def _drop_all(self) -> None:
        with self._lock:
            connections, self._connections = self._connections, []
        for end in connections:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
