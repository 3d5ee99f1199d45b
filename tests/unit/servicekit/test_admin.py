"""AdminService where its caller goes away."""

from __future__ import annotations

import asyncio
import hashlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Generator
from pathlib import Path
from typing import Any, cast

import pytest
from rekindle.api.common.v1 import admin_pb2 as pb
from rekindle.errors import CapacityExceeded
from rekindle_servicekit import context as ambient
from rekindle_servicekit.admin import AdminServicer, serve_admin
from rekindle_servicekit.principal import Principal
from rekindle_servicekit.workers import Cancellation, Workers


class Archive:
    """A project whose second chunk takes until somebody lets it come."""

    service = "test"

    def __init__(self) -> None:
        self.reading, self.go_on, self.closed = threading.Event(), threading.Event(), threading.Event()

    def export(self, _project_id: str, _cancellation: Cancellation) -> Generator[bytes]:
        try:
            yield b"first"
            self.reading.set()
            assert self.go_on.wait(10)
            yield b"second"
        finally:
            self.closed.set()


class Context:
    def time_remaining(self) -> float | None:
        return None


def test_an_export_whose_caller_hangs_up_is_closed_once_it_can_be() -> None:
    """Not while a chunk is still being read; what it held is let go of, and no error is made of it."""
    archive, workers = Archive(), Workers()
    servicer = AdminServicer(workers, cast("Any", None), cast("Any", archive))

    async def export() -> None:
        async for _ in servicer.ExportProject(pb.ExportProjectRequest(project_id="p"), cast("Any", Context())):
            pass

    async def scenario() -> None:
        call = asyncio.create_task(export())
        await asyncio.to_thread(archive.reading.wait, 10)
        call.cancel()
        await asyncio.sleep(0.05)
        archive.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert archive.closed.is_set()

    asyncio.run(scenario())
    workers.close()


async def an_import(data: bytes) -> AsyncIterator[pb.ImportProjectRequest]:
    """What a client sends."""
    header = pb.ImportProjectHeader(request_id="r", project_id="p", sha256=hashlib.sha256(data).hexdigest())
    yield pb.ImportProjectRequest(header=header)
    yield pb.ImportProjectRequest(chunk=data)


def import_and_hang(folder: str) -> None:
    """A service that has taken an archive in and then stands still; says so on its output."""
    tempfile.tempdir = folder

    class Hanging:
        service = "test"

        def import_(self, *_arguments: object) -> tuple[int, int]:
            sys.stdout.write("imports\n")
            sys.stdout.flush()
            threading.Event().wait(60)
            return 0, 0

    servicer = AdminServicer(Workers(), cast("Any", None), cast("Any", Hanging()))
    with ambient.bind(principal=Principal(issuer="i", subject="operator", display_name="Operator")):
        asyncio.run(servicer.ImportProject(an_import(b"a patient's data"), cast("Any", Context())))


class Server:
    """Takes what it is to serve, and serves nothing."""

    def add(self, *_arguments: object) -> None: ...


def test_what_a_killed_import_left_is_removed_at_the_next_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not what one that still runs has."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    code = "import sys; sys.path.insert(0, sys.argv[2]); import test_admin; test_admin.import_and_hang(sys.argv[1])"
    command = [sys.executable, "-c", code, str(tmp_path), str(Path(__file__).parent)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == b"imports\n"
            serve_admin(cast("Any", Server()), Workers(), verify=cast("Any", None), archive=cast("Any", Archive()))
            assert [path.read_bytes() for path in tmp_path.glob("*/archive.tar")] == [b"a patient's data"]
        finally:
            os.kill(process.pid, signal.SIGKILL)
    serve_admin(cast("Any", Server()), Workers(), verify=cast("Any", None), archive=cast("Any", Archive()))
    assert list(tmp_path.iterdir()) == []


def test_an_archive_that_there_is_no_room_for_is_refused_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CapacityExceeded instead of an incident, and nothing is left."""
    make = tempfile.mkdtemp

    def on_a_full_disk(**options: Any) -> str:
        folder = make(**options)
        Path(folder, "archive.tar").symlink_to("/dev/full")
        return folder

    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(tempfile, "mkdtemp", on_a_full_disk)
    servicer = AdminServicer(Workers(), cast("Any", None), cast("Any", Archive()))
    with pytest.raises(CapacityExceeded) as caught:
        asyncio.run(servicer.ImportProject(an_import(bytes(2**20)), cast("Any", Context())))
    assert caught.value.reason == "DISK_FULL"
    assert list(tmp_path.iterdir()) == []
