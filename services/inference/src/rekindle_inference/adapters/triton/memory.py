"""System shared memory: batches and logits that never travel through a socket, where Triton is on the same host."""

from __future__ import annotations

import contextlib
import logging
import mmap
import os
import socket
import threading
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray
from rekindle.errors import DependencyUnavailable

from rekindle_inference.adapters.triton.client import ModelGone, Refused, TritonClient

_log = logging.getLogger(__name__)

#: Where the system's shared memory objects are files.
_FOLDER = Path("/dev/shm")
_PREFIX = "rekindle-shm"
_ALIGNMENT = 4096
_FLOAT_BYTES = 4


class Region:
    """One memory object for one batch at a time: images first, logits after them."""

    def __init__(self, size: int) -> None:
        """OSError where the system has no room for it."""
        self.size = -(-size // _ALIGNMENT) * _ALIGNMENT
        self.name = f"{_PREFIX}-{socket.gethostname()}-{os.getpid()}-{uuid4().hex[:12]}"
        self.path = _FOLDER / self.name
        # For this user only: the pixels are patients'.
        descriptor = os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        try:
            # Room is taken now: without it, a full /dev/shm would end the process at the first write.
            os.posix_fallocate(descriptor, 0, self.size)
            self._map = mmap.mmap(descriptor, self.size)
        except OSError:
            self.path.unlink(missing_ok=True)
            raise
        finally:
            os.close(descriptor)

    def view(self, offset: int, shape: tuple[int, ...]) -> NDArray[np.float32]:
        """The floats at `offset` bytes; not to be kept beyond the region's use."""
        count = int(np.prod(shape))
        return np.frombuffer(self._map, np.float32, count=count, offset=offset).reshape(shape)

    def free(self) -> None:
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(BufferError):  # a view is still read somewhere: freed with it
            self._map.close()


class SharedMemory:
    """Regions that were registered with Triton, used again and again. Safe to use from several threads."""

    def __init__(self, client: TritonClient) -> None:
        self._client = client
        self._free: list[Region] = []
        self._lock = threading.Lock()
        self._swept = False
        self._closed = False

    @staticmethod
    def is_possible() -> bool:
        return _FOLDER.is_dir()

    def take(self, size: int) -> Region:
        """A registered region of at least `size` bytes.

        Refused or OSError where memory cannot be shared, DependencyUnavailable where Triton is away.
        """
        self._sweep()
        with self._lock:
            fitting = [region for region in self._free if region.size >= size]
            if fitting:
                region = min(fitting, key=lambda each: each.size)
                self._free.remove(region)
                return region
            outgrown, self._free = self._free, []
        for region in outgrown:
            self.discard(region)
        region = Region(size)
        try:
            self._client.register(region.name, f"/{region.name}", region.size)
        except BaseException:
            region.free()
            raise
        return region

    def give_back(self, region: Region) -> None:
        """Once Triton has answered: nothing of it is written any more."""
        with self._lock:
            if not self._closed:
                self._free.append(region)
                return
        self.discard(region)

    def discard(self, region: Region) -> None:
        """Triton may still be writing to it, or does not know it any more."""
        region.free()
        self._unregister(region.name)

    def clear(self) -> None:
        """Discard what is not in use."""
        with self._lock:
            regions, self._free = self._free, []
        for region in regions:
            self.discard(region)

    def close(self) -> None:
        with self._lock:
            self._closed = True
        self.clear()

    def _sweep(self) -> None:
        """Once: what a process of this host that was killed has left behind."""
        with self._lock:
            if self._swept:
                return
            self._swept = True
        for name in self._client.regions():
            if is_left_behind(name):
                _log.info("freeing shared memory of a process that is gone", extra={"action": "engine.memory"})
                (_FOLDER / name).unlink(missing_ok=True)
                self._unregister(name)

    def _unregister(self, name: str) -> None:
        with contextlib.suppress(DependencyUnavailable, Refused, ModelGone):
            self._client.unregister(name)


def is_left_behind(name: str) -> bool:
    """Whether a region was made on this host by a process that has ended, or by one that had this one's number."""
    if not name.startswith(f"{_PREFIX}-{socket.gethostname()}-"):
        return False
    pid = name.split("-")[-2]
    return pid.isdigit() and (int(pid) == os.getpid() or not Path(f"/proc/{pid}").exists())


def describe(tensor: Any, region: Region, offset: int, size: int) -> None:
    """Let a tensor of a request lie in a region."""
    tensor.parameters["shared_memory_region"].string_param = region.name
    tensor.parameters["shared_memory_byte_size"].int64_param = size
    if offset:
        tensor.parameters["shared_memory_offset"].int64_param = offset


def float_bytes(shape: tuple[int, ...]) -> int:
    return _FLOAT_BYTES * int(np.prod(shape))
