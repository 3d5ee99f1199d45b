"""Patience with an object store that is away: hours of training are not given up for minutes of a fault."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from rekindle.errors import DependencyUnavailable
from rekindle_servicekit.objects import Objects

T = TypeVar("T")
_log = logging.getLogger(__name__)
_FIRST_WAIT_S: Final = 0.5
_LONGEST_WAIT_S: Final = 10.0


class RetryingObjects:
    """The store behind it; what is unavailable is tried again for up to `patience_s`, or until `should_stop`.

    DependencyUnavailable then. Every method can be repeated without harm, as objects are immutable.
    """

    def __init__(self, objects: Objects, patience_s: float, should_stop: Callable[[], bool]) -> None:
        self._objects = objects
        self._patience_s = patience_s
        self._should_stop = should_stop

    def put(self, key: str, data: bytes) -> None:
        self._patiently(lambda: self._objects.put(key, data))

    def put_file(self, key: str, path: Path) -> None:
        self._patiently(lambda: self._objects.put_file(key, path))

    def get(self, key: str) -> bytes:
        return self._patiently(lambda: self._objects.get(key))

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        return self._patiently(lambda: self._objects.read_range(key, offset, length))

    def open(self, key: str) -> BinaryIO:
        # A break further on is the reader's to see.
        return self._patiently(lambda: self._objects.open(key))

    def exists(self, key: str) -> bool:
        return self._patiently(lambda: self._objects.exists(key))

    def size(self, key: str) -> int:
        return self._patiently(lambda: self._objects.size(key))

    def modified_at(self, key: str) -> datetime:
        return self._patiently(lambda: self._objects.modified_at(key))

    def list(self, prefix: str = "") -> Iterator[str]:
        return iter(self._patiently(lambda: [*self._objects.list(prefix)]))

    def delete(self, key: str) -> None:
        self._patiently(lambda: self._objects.delete(key))

    def presign_put(self, key: str, expires_s: float) -> str | None:
        return self._objects.presign_put(key, expires_s)

    def presign_get(self, key: str, expires_s: float) -> str | None:
        return self._objects.presign_get(key, expires_s)

    def _patiently(self, ask: Callable[[], T]) -> T:
        began, wait_s = time.monotonic(), _FIRST_WAIT_S
        while True:
            try:
                return ask()
            except DependencyUnavailable as error:
                if self._should_stop() or time.monotonic() + wait_s - began > self._patience_s:
                    raise
                _log.warning("%s: waiting for it", error.message)
            time.sleep(wait_s)
            wait_s = min(2 * wait_s, _LONGEST_WAIT_S)
