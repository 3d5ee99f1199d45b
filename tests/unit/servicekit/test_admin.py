"""AdminService where its caller goes away."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Generator
from typing import Any, cast

import pytest
from rekindle.api.common.v1 import admin_pb2 as pb
from rekindle_servicekit.admin import AdminServicer
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
