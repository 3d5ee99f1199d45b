"""Private folders for files on their way: they go with the process that made them, even a killed one."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from rekindle.errors import CapacityExceeded

_LOCK = "lock"
_FULL = {errno.ENOSPC, errno.EDQUOT}


class ScratchFolder:
    """A folder of this process below `parent`, readable by no other user, until it is closed.

    A process that was killed leaves its folder behind; `remove_abandoned` tells it from a live one's by the lock in it.
    """

    def __init__(self, parent: Path, prefix: str) -> None:
        while True:
            self.root = Path(tempfile.mkdtemp(dir=parent, prefix=prefix))
            self.lock_file = self.root / _LOCK
            self._lock = os.open(self.lock_file, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX)
            if self.lock_file.exists():
                return
            os.close(self._lock)  # taken for abandoned before it was locked

    def close(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        os.close(self._lock)

    def __enter__(self) -> Path:
        return self.root

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


def remove_abandoned(parent: Path, prefix: str) -> None:
    """Remove the folders of this name whose processes are dead."""
    for folder in parent.glob(f"{prefix}*"):
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


@contextmanager
def needing_room(what: str) -> Generator[None]:
    """CapacityExceeded (DISK_FULL) where the disk has no room for `what`."""
    try:
        yield
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise CapacityExceeded(
            f"the folder for temporary files has no room for {what}: make room in it, or name another in TMPDIR",
            reason="DISK_FULL",
            retry_after_s=30.0,
        ) from error
