"""What runs in the sandboxed process: one foreign file in, canonical bytes or an error out.

What is imported here is loaded once, before the first file, in the process that the children fork from.
"""

from __future__ import annotations

import json
import os
import resource
import tempfile
from dataclasses import dataclass
from pathlib import Path

from rekindle_imaging import canonical
from rekindle_imaging.errors import VolumeError
from rekindle_imaging.files import read_volume

CANONICAL_FILE = "canonical"
REPORT_FILE = "report.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one file may cost."""

    #: Address space beyond what the process has before it reads.
    memory_bytes: int = 2 * 1024**3
    cpu_s: int = 30
    wall_s: float = 60.0
    #: Largest file that may be written.
    output_bytes: int = 1024**3
    max_voxels: int = canonical.MAX_VOXELS


def parse(path: str, kind: str, format: str, folder: str, limits: Limits) -> None:
    """Read the file at `path`; leave `report.json` and, where all went well, `canonical` in `folder`."""
    _confine(limits, folder)
    report: dict[str, str]
    try:
        volume = read_volume(
            Path(path),
            kind="image" if kind == "image" else "mask",
            format="nifti" if format == "nifti" else format,  # pyright: ignore[reportArgumentType]
            max_voxels=limits.max_voxels,
        )
        data = canonical.encode(volume, kind)
        Path(folder, CANONICAL_FILE).write_bytes(data)
        report = {"digest": canonical.digest(data)}
    except VolumeError as error:
        report = {"reason": error.reason, "message": error.message}
    except (MemoryError, OSError):
        report = {
            "reason": "TOO_LARGE",
            "message": "the file needs more memory or space than one file may have",
        }
    Path(folder, REPORT_FILE).write_text(json.dumps(report))


def _confine(limits: Limits, folder: str) -> None:
    tempfile.tempdir = folder
    # A parser's own words may hold a path or a header field, and nobody reads them.
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    address_space = _address_space_bytes() + limits.memory_bytes
    for what, most in [
        (resource.RLIMIT_AS, address_space),
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_FSIZE, limits.output_bytes),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ]:
        hard = resource.getrlimit(what)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (value, value))


def _address_space_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * os.sysconf("SC_PAGE_SIZE")
