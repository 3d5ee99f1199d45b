"""An object store whose objects can be sent by HTTP to addresses that it hands out, as S3's presigned ones."""

from __future__ import annotations

import secrets
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rekindle_servicekit.objects import DirectoryObjects


class HttpObjects(DirectoryObjects):
    """A directory that also listens on loopback. A PUT replaces what was there, as in S3."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        #: Path of an address to the key and the moment when it ends.
        self._addresses: dict[str, tuple[str, float]] = {}
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"objects": self}))
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def presign_put(self, key: str, expires_s: float) -> str | None:
        path = f"/{secrets.token_urlsafe()}"
        self._addresses[path] = (key, time.monotonic() + expires_s)
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def receive(self, path: str, data: bytes) -> int:
        """The HTTP status."""
        key, ends = self._addresses.get(path, ("", 0.0))
        if time.monotonic() >= ends:
            return 403
        self.delete(key)
        self.put(key, data)
        return 200

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    objects: HttpObjects

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(self.objects.receive(urlsplit(self.path).path, data))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: addresses are secrets."""
