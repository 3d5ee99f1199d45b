"""Private folders for files that come in or go out: gone with their call, or when the service starts again."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from rekindle_servicekit.scratch import ScratchFolder, remove_abandoned

_PREFIX = "rekindle-inference-"


class Incoming:
    """A folder of this process below `parent`, readable by nobody else.

    What a process that was killed has left behind is removed by the next one that starts.
    """

    def __init__(self, parent: Path) -> None:
        parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(parent, _PREFIX)
        self._scratch = ScratchFolder(parent, _PREFIX)
        self.root = self._scratch.root

    @contextmanager
    def folder(self) -> Generator[Path]:
        """A folder for one call, removed with all that is in it."""
        with tempfile.TemporaryDirectory(dir=self.root, prefix="call-", ignore_cleanup_errors=True) as folder:
            yield Path(folder)

    def files(self) -> list[Path]:
        """What lies in the folder now, this object's own lock left out."""
        while True:
            try:
                found = [path for path in self.root.rglob("*") if path.is_file()]
                return [path for path in found if path != self._scratch.lock_file]
            except FileNotFoundError:
                continue  # a call has ended and taken its folder away meanwhile: look again

    def close(self) -> None:
        self._scratch.close()
