"""Private folders for files that come in or go out: gone with their call, or when the service starts again."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

_PREFIX = "rekindle-inference-"
_LOCK = "lock"


class Incoming:
    """A folder of this process below `parent`, readable by nobody else.

    A process that was killed leaves its folder behind; the next one that starts removes it, and tells it
    from a live one's by the lock in it.
    """

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        _remove_abandoned(parent)
        self.root = Path(tempfile.mkdtemp(dir=parent, prefix=_PREFIX))
        self._lock = os.open(self.root / _LOCK, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    @contextmanager
    def folder(self) -> Generator[Path]:
        """A folder for one call, removed with all that is in it."""
        with tempfile.TemporaryDirectory(dir=self.root, prefix="call-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def files(self) -> list[Path]:
        """What lies in the folder now, this object's own lock left out."""
        while True:
            try:
                return [path for path in self.root.rglob("*") if path.is_file() and path.name != _LOCK]
            except FileNotFoundError:
                continue  # a call has ended and taken its folder away meanwhile: look again

    def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        os.close(self._lock)


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        try:
            descriptor = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # just being made, or another user's
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:
            pass
        finally:
            os.close(descriptor)
