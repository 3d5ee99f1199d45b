"""Files without a name: nothing of them is left when the process is killed."""

from __future__ import annotations

import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def unnamed_file() -> Generator[tuple[IO[bytes], Path]]:
    """A file to write to, unbuffered, and a path that opens it again from its beginning, in this process alone."""
    with tempfile.TemporaryFile(buffering=0) as file:
        yield file, Path(f"/proc/self/fd/{file.fileno()}")
