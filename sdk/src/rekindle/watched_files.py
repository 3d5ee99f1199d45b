"""Files that are replaced while a process runs: certificates, keys, tokens."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Sequence
from pathlib import Path

Signature = tuple[tuple[int, int, int, int] | None, ...]

#: Pause before files that could not be used are looked at again.
_LOOK_AGAIN_S = 5.0


class WatchedFiles:
    """Tells when one of some files was changed or replaced. Looks only when it is asked; safe between threads."""

    def __init__(self, paths: Sequence[Path], look_again_s: float = _LOOK_AGAIN_S) -> None:
        self.paths = tuple(paths)
        self._look_again_s = look_again_s
        self._lock = threading.Lock()
        self._seen = self.signature()
        self._again_at = math.inf

    def signature(self) -> Signature:
        """What the files look like from outside, through symbolic links; None for one that is not there."""
        return tuple(_signature(path) for path in self.paths)

    def have_changed(self) -> bool:
        """Whether they differ from what they were at the last call that said so, or at the start."""
        with self._lock:
            now = self.signature()
            is_new = now != self._seen or time.monotonic() >= self._again_at
            if is_new:
                self._seen, self._again_at = now, math.inf
            return is_new

    def were_of_no_use(self) -> None:
        """They are said to have changed once more in a while: what kept them from being read may have passed."""
        with self._lock:
            self._again_at = time.monotonic() + self._look_again_s


def _signature(path: Path) -> tuple[int, int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    # The last one grows too when somebody is allowed to read the file.
    return (status.st_ino, status.st_mtime_ns, status.st_size, status.st_ctime_ns)
