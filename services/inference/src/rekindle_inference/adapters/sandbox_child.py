"""What runs in the sandboxed process: one foreign file in, canonical bytes or an error out.

What is imported here is loaded once, before the first file, in the process that the children fork from.
"""

from __future__ import annotations

import ctypes
import json
import math
import mmap
import os
import resource
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rekindle_imaging import canonical
from rekindle_imaging.dicom.archive import Member
from rekindle_imaging.dicom.seg_reader import SegmentClass, read_segmentation
from rekindle_imaging.dicom.segmentation import Authorship, Segment, segmentation_bytes
from rekindle_imaging.dicom.series import SeriesVolume, files_in, look_through, read_series, single_series
from rekindle_imaging.dicom.study import instances_of, take_apart
from rekindle_imaging.errors import VolumeError
from rekindle_imaging.files import read_volume
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume

CANONICAL_FILE = "canonical"
SEGMENTATION_FILE = "segmentation"
REPORT_FILE = "report.json"

_CLONE_NEWUSER, _CLONE_NEWNET = 0x10000000, 0x40000000

#: Processor seconds per mebibyte of a DICOM archive; JPEG 2000 takes about 0.15.
_ARCHIVE_CPU_S = 0.25

Report = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one file may cost."""

    #: Address space beyond what the process has before it reads, the file itself not counted.
    memory_bytes: int = 2 * 1024**3
    cpu_s: int = 30
    wall_s: float = 60.0
    #: Largest file that may be written.
    output_bytes: int = 1024**3
    max_voxels: int = canonical.MAX_VOXELS

    def for_archive(self, file_bytes: int) -> Limits:
        """The same with time for as many compressed slices as an archive of this size can hold."""
        mebibytes = file_bytes / 1024**2
        return replace(
            self,
            cpu_s=self.cpu_s + math.ceil(mebibytes * _ARCHIVE_CPU_S),
            wall_s=self.wall_s + mebibytes * 2 * _ARCHIVE_CPU_S,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class MaskGrid:
    """What a DICOM SEG is laid onto: the grid of its image, the image's instances, and what segments may be."""

    geometry: Geometry
    sop_instance_uids: tuple[str, ...]
    organs: tuple[SegmentClass, ...]


def parse(path: str, kind: str, format: str, folder: str, limits: Limits) -> None:
    """Read the file at `path`; leave `report.json` and, where all went well, `canonical` in `folder`."""

    def read() -> Report:
        if format == "dicom":
            with _mapped(path) as data:
                return _keep_series(read_whole_series(data), folder)
        volume = read_volume(
            Path(path),
            kind="image" if kind == "image" else "mask",
            format=format,  # pyright: ignore[reportArgumentType]
            max_voxels=limits.max_voxels,
        )
        return _keep(volume, kind, folder)

    def read_whole_series(data: memoryview) -> SeriesVolume:
        instances = single_series(look_through(data, files_in(data)))
        return read_series(data, instances, max_voxels=limits.max_voxels)

    _confined(read, path, folder, limits)


def parse_series(path: str, files: Sequence[tuple[int, int]], folder: str, limits: Limits) -> None:
    """Like `parse`, of the files of one series that lie at these (offset, size) in the archive at `path`."""

    def read() -> Report:
        with _mapped(path) as data:
            instances = look_through(data, [Member(offset, size) for offset, size in files])
            return _keep_series(read_series(data, instances, max_voxels=limits.max_voxels), folder)

    _confined(read, path, folder, limits)


def parse_segmentation(path: str, grid: MaskGrid, folder: str, limits: Limits) -> None:
    """Like `parse`, of a DICOM SEG that is laid onto its image's grid."""

    def read() -> Report:
        with _mapped(path) as data:
            mask = read_segmentation(data, grid.geometry, grid.sop_instance_uids, grid.organs)
        return _keep(mask, "mask", folder)

    _confined(read, path, folder, limits)


def list_series(path: str, folder: str, limits: Limits) -> None:
    """Leave a report that lists the series of the archive at `path`, with where their files lie."""

    def read() -> Report:
        with _mapped(path) as data:
            return {
                "series": [
                    {
                        "series_instance_uid": found.series_instance_uid,
                        "modality": found.modality,
                        "files": [(member.offset, member.size) for member in found.files],
                        "failure": None if found.failure is None else [found.failure.reason, found.failure.message],
                    }
                    for found in take_apart(data)
                ]
            }

    _confined(read, path, folder, limits)


def write_segmentation(
    path: str,
    series_instance_uid: str,
    mask_path: str,
    segments: Sequence[Segment],
    authorship: Authorship,
    folder: str,
    limits: Limits,
) -> None:
    """Leave a DICOM SEG of the canonical mask at `mask_path`, for a series of the archive at `path`."""

    def write() -> Report:
        mask = canonical.decode(Path(mask_path).read_bytes(), max_voxels=limits.max_voxels)
        with _mapped(path) as data:
            instances = instances_of(data, series_instance_uid)
            made = segmentation_bytes(data, instances, mask, segments, authorship, max_voxels=limits.max_voxels)
        Path(folder, SEGMENTATION_FILE).write_bytes(made)
        return {}

    _confined(write, path, folder, limits)


def leave_network() -> bool:
    """Whether this process could be cut off from every network; where the system forbids it, it goes on without."""
    unshare = ctypes.CDLL(None, use_errno=True).unshare
    return any(unshare(flags) == 0 for flags in (_CLONE_NEWNET, _CLONE_NEWUSER | _CLONE_NEWNET))


def _confined(task: Callable[[], Report], path: str, folder: str, limits: Limits) -> None:
    _confine(limits, folder, Path(path).stat().st_size)
    report: Report
    try:
        report = task()
    except VolumeError as error:
        report = {"reason": error.reason, "message": error.message}
    except (MemoryError, OSError):
        report = {
            "reason": "TOO_LARGE",
            "message": "the file needs more memory or space than one file may have",
        }
    Path(folder, REPORT_FILE).write_text(json.dumps(report))


def _keep(volume: Volume, kind: str, folder: str) -> Report:
    data = canonical.encode(volume, kind)
    Path(folder, CANONICAL_FILE).write_bytes(data)
    return {"digest": canonical.digest(data)}


def _keep_series(series: SeriesVolume, folder: str) -> Report:
    kept = _keep(series.volume, "image", folder)
    return {**kept, "modality": series.modality, "source": asdict(series.reference)}


@contextmanager
def _mapped(path: str) -> Generator[memoryview]:
    """The bytes of the file, paged in as they are looked at."""
    with Path(path).open("rb") as file:
        if not os.fstat(file.fileno()).st_size:
            raise VolumeError("NOT_DICOM", "the file is empty")
        # Never closed: views on it may be held until the process ends, which is soon.
        yield memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _confine(limits: Limits, folder: str, file_bytes: int) -> None:
    tempfile.tempdir = folder
    leave_network()
    # A parser's own words may hold a path or a header field, and nobody reads them.
    nothing = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(nothing, descriptor)
    address_space = _address_space_bytes() + limits.memory_bytes + file_bytes
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
