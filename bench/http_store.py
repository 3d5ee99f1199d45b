"""What serves files without Rekindle: HTTP PUT and GET on a folder, with the SHA-256 of what was written."""

from __future__ import annotations

import hashlib
import http.client
import shutil
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

CHUNK_BYTES = 1024 * 1024


class _Files(BaseHTTPRequestHandler):
    folder: Path

    def do_PUT(self) -> None:
        digest, left = hashlib.sha256(), int(self.headers["Content-Length"])
        with (self.folder / Path(self.path).name).open("wb") as file:
            while left and (chunk := self.rfile.read(min(CHUNK_BYTES, left))):
                digest.update(chunk)
                file.write(chunk)
                left -= len(chunk)
        self._answer(HTTPStatus.CREATED, digest.hexdigest().encode())

    def do_GET(self) -> None:
        path = self.folder / Path(self.path).name
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", str(path.stat().st_size))
        self.end_headers()
        with path.open("rb") as file:
            shutil.copyfileobj(file, self.wfile, CHUNK_BYTES)

    def _answer(self, status: HTTPStatus, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Nothing: a line per request is no help here."""


def _serve(folder: Path, started: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Files", (_Files,), {"folder": folder}))
    started.send(server.server_address[1])
    server.serve_forever()


class HttpStore:
    """The server, in a process of its own while the context lasts, and a client of it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: BaseProcess | None = None
        self._port = 0

    def __enter__(self) -> HttpStore:
        context = get_context("spawn")
        here, there = context.Pipe()
        self._process = context.Process(target=_serve, args=(self._folder, there), daemon=True)
        self._process.start()
        self._port = here.recv()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None:
            self._process.terminate()
            self._process.join()

    def put(self, name: str, data: bytes) -> None:
        """Send a file; ValueError where other bytes arrived."""
        if self._ask("PUT", name, data) != hashlib.sha256(data).hexdigest().encode():
            raise ValueError("the file arrived damaged")

    def get(self, name: str, sha256: str) -> bytes:
        """Fetch a file; ValueError where other bytes arrived."""
        data = self._ask("GET", name, None)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError("the file arrived damaged")
        return data

    def _ask(self, method: str, name: str, body: bytes | None) -> bytes:
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)
        try:
            connection.request(method, f"/{name}", body)
            return connection.getresponse().read()
        finally:
            connection.close()
