"""Triton engines for tests, each with models of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from rekindle_inference.adapters.triton.batches import Batches
from rekindle_inference.adapters.triton.client import Connection, TritonClient
from rekindle_inference.adapters.triton.config import ModelOptions
from rekindle_inference.adapters.triton.engine import TritonEngine
from rekindle_inference.adapters.triton.memory import SharedMemory
from rekindle_inference.adapters.triton.repository import ModelRepository
from rekindle_servicekit.objects import DirectoryObjects, Objects


@contextmanager
def triton_engine(
    packages: Objects,
    *,
    address: str,
    repository: str | Objects,
    shared: bool = True,
    connection: dict[str, Any] | None = None,
    **options: Any,
) -> Iterator[TritonEngine]:
    """An engine of a new installation on the Triton at `address`; its models are unloaded at the end."""
    client = TritonClient(Connection(address=address, **(connection or {})))
    files = DirectoryObjects(Path(repository)) if isinstance(repository, str) else repository
    installation = options.pop("installation", f"test{uuid4().hex[:8]}")
    max_batch = options.pop("max_batch", 4)
    engine = TritonEngine(
        client,
        ModelRepository(packages, files, ModelOptions(max_batch=max_batch, max_queue_delay_us=100)),
        Batches(client, SharedMemory(client) if shared else None),
        installation=installation,
        max_batch=max_batch,
        **options,
    )
    try:
        yield engine
    finally:
        for name in engine.loaded():
            client.unload(name)
        engine.close()
