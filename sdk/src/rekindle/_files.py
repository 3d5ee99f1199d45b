"""Files that are replaced while a process runs: certificates, keys, tokens."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

Signature = tuple[tuple[int, int, int] | None, ...]


class WatchedFiles:
    """Tells when one of some files was changed or replaced. Looks only when it is asked; safe between threads."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = tuple(paths)
        self._lock = threading.Lock()
        self._seen = self.signature()

    def signature(self) -> Signature:
        """What the files look like from outside, through symbolic links; None for one that is not there."""
        return tuple(_signature(path) for path in self.paths)

    def have_changed(self) -> bool:
        """Whether they differ from what they were at the last call that said so, or at the start."""
        with self._lock:
            now = self.signature()
            changed, self._seen = now != self._seen, now
            return changed


def _signature(path: Path) -> tuple[int, int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return (found.st_ino, found.st_mtime_ns, found.st_size)
