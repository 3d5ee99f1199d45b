"""Where the servers' programs are; ``tools/install-servers`` fetches what is missing."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[3]
TOOLS = ROOT / ".tools"


class MissingServer(AssertionError):
    """A server that a test needs cannot be had here; says what to do."""


@cache
def installed(name: str) -> Path:
    """The folder of a server's program, fetched where it is not there yet; MissingServer."""
    done = subprocess.run(
        [ROOT / "tools" / "install-servers", name], stdin=subprocess.DEVNULL, capture_output=True, text=True
    )
    if done.returncode:
        raise MissingServer(f"{name} cannot be installed:\n{done.stderr.strip() or done.stdout.strip()}")
    return TOOLS / name
