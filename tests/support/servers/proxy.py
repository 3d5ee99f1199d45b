"""A TCP line between two parties that a test can cut and heal."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from typing import Self


class Proxy:
    """Passes bytes from its own port to `target_port`, both on the loopback interface.

    Or from `listener` to whatever `dial` connects to; where that raises OSError the caller is cut off.
    """

    def __init__(
        self,
        target_port: int = 0,
        *,
        listener: socket.socket | None = None,
        dial: Callable[[], socket.socket] | None = None,
    ) -> None:
        self._target_port = target_port
        self._dial = dial or self._dial_port
        self._listener = listener or socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._lock = threading.Lock()
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._abandoned: set[tuple[socket.socket, socket.socket]] = set()
        self._passing = threading.Event()
        self._passing.set()
        self._is_cut = False
        #: Bytes towards the target after which the line breaks once; None for never.
        self._breaks_after: int | None = None
        self._damage: tuple[bytes, bytes] | None = None
        self._is_down = False
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """End all connections at once and refuse new ones, until `heal`."""
        with self._lock:
            self._is_cut = True
            pairs, self._pairs = self._pairs, set()
        for pair in pairs:
            _close(*pair)

    def heal(self) -> None:
        with self._lock:
            self._is_cut = False

    def hold(self) -> None:
        """Connections stay and new ones are taken, and nothing passes, until `go_on`."""
        self._passing.clear()

    def go_on(self) -> None:
        self._passing.set()

    def abandon(self) -> None:
        """Nothing passes any more over the connections that there are, and nobody is told; new ones work."""
        with self._lock:
            self._abandoned |= self._pairs

    def lead_to(self, target_port: int) -> None:
        """Have new connections go there; those that are open stay where they are until somebody ends them."""
        self._target_port = target_port

    def break_after(self, count: int, *, down: bool = False) -> None:
        """End the connection over which so many further bytes have gone, up to the target or down from it, once."""
        with self._lock:
            self._breaks_after, self._is_down = count, down

    def damage(self, what: bytes, instead: bytes) -> None:
        """Let these bytes arrive at the target as others of the same number."""
        assert len(what) == len(instead)
        self._damage = (what, instead)

    def close(self) -> None:
        self.go_on()
        self.cut()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _dial_port(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self._target_port), timeout=5)

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            try:
                far = self._dial()
                far.settimeout(None)
            except OSError:
                _close(near)
                continue
            with self._lock:
                if self._is_cut:
                    _close(near, far)
                    continue
                self._pairs.add((near, far))
            for source, sink, is_up in ((near, far, True), (far, near, False)):
                threading.Thread(target=self._pump, args=(source, sink, (near, far), is_up), daemon=True).start()

    def _pump(
        self, source: socket.socket, sink: socket.socket, pair: tuple[socket.socket, socket.socket], is_up: bool
    ) -> None:
        try:
            while data := source.recv(65536):
                self._passing.wait()
                if pair in self._abandoned:
                    continue
                if is_up and self._damage:
                    data = data.replace(*self._damage)
                sink.sendall(data)
                if is_up is not self._is_down and self._is_used_up(len(data)):
                    break
        except OSError:
            pass
        with self._lock:
            self._pairs.discard(pair)
        _close(*pair)

    def _is_used_up(self, count: int) -> bool:
        with self._lock:
            if self._breaks_after is None:
                return False
            self._breaks_after -= count
            if self._breaks_after > 0:
                return False
            self._breaks_after = None
            return True


def _close(*sockets: socket.socket) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)
        each.close()
