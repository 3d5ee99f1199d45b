"""Engines that do as a test says around the real one."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rekindle_inference.adapters.onnxruntime import OnnxRuntimeEngine
from rekindle_servicekit.objects import DirectoryObjects


class HookedEngine(OnnxRuntimeEngine):
    """The embedded engine; `hook` runs before each slice batch, with its number of slices."""

    def __init__(self, objects_directory: Path, hook: Callable[[int], None] = lambda _: None) -> None:
        super().__init__(DirectoryObjects(objects_directory), batch_size=5)
        self.hook = hook
        #: Slices of each batch, in the order in which they began.
        self.batches: list[int] = []
        self._noting = threading.Lock()

    def predict(self, package: Any, images: Any, cancellation: Any) -> Any:
        with self._noting:
            self.batches.append(len(images))
        self.hook(len(images))
        return super().predict(package, images, cancellation)


class Holding:
    """A hook that holds chosen batches until they are let go."""

    def __init__(self, slices: int) -> None:
        self._slices = slices
        self._held = threading.Event()
        self._free = threading.Event()

    def __call__(self, slices: int) -> None:
        if slices == self._slices:
            self._held.set()
            assert self._free.wait(60)

    def wait_until_held(self) -> None:
        assert self._held.wait(60)

    def let_go(self) -> None:
        self._free.set()


def main() -> None:
    """The service as a process whose engine takes half a second for each batch."""
    from rekindle_inference.adapters.sandbox import start_forkserver

    start_forkserver()
    import asyncio

    from rekindle_inference.service import build_service
    from rekindle_inference.settings import Settings
    from rekindle_servicekit.server import serve

    async def run() -> None:
        settings = Settings.load()
        engine = HookedEngine(settings.objects_directory, lambda _: time.sleep(0.5))
        service = build_service(settings, engine=engine)
        try:
            await serve(service.server, [service.dispatcher.run])
        finally:
            service.close()

    asyncio.run(run())


if __name__ == "__main__":
    main()
