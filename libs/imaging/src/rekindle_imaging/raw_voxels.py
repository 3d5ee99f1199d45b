"""Voxels behind a text header (NRRD, MetaImage): bounded by the header's claim, not by the bytes."""

import re
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from rekindle_imaging.errors import VolumeError
from rekindle_imaging.geometry import Triple

#: Largest length of a header, in bytes.
MAX_HEADER_BYTES: Final = 65_536
#: Deflate cannot do better than about 1032 to 1.
_MAX_DEFLATE_RATIO: Final = 1040
_NUMBER: Final = re.compile(r"[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?")
_WHOLE: Final = re.compile(r"\d{1,9}")


def start_of(path: Path) -> bytes:
    """As many bytes as a header may have."""
    with path.open("rb") as file:
        return file.read(MAX_HEADER_BYTES)


def numbers(text: str, count: int, what: str) -> tuple[float, ...]:
    """Exactly `count` finite decimal numbers, with a point in every locale. Raises VolumeError("BAD_GEOMETRY")."""
    words = text.split()
    if len(words) != count or not all(_NUMBER.fullmatch(word) for word in words):
        raise VolumeError("BAD_GEOMETRY", f"{what} must be {count} finite numbers, with a decimal point")
    return tuple(float(word) for word in words)


def sizes(text: str, dimensions: int, max_voxels: int) -> tuple[int, int, int]:
    """The size (i, j, k). Raises VolumeError: NOT_3D, NOT_A_VOLUME, TOO_LARGE."""
    words = text.split()
    if dimensions != 3:
        raise VolumeError("NOT_3D", "the image does not have three dimensions; send whole volumes, one at a time")
    if len(words) != 3 or not all(_WHOLE.fullmatch(word) for word in words) or min(map(int, words)) < 1:
        raise VolumeError("NOT_A_VOLUME", "the header's sizes are no three whole numbers of at least 1")
    i, j, k = (int(word) for word in words)
    if i * j * k > max_voxels:
        raise VolumeError("TOO_LARGE", f"the header claims {i * j * k} voxels; at most {max_voxels} are taken")
    return (i, j, k)


def read_voxels(
    path: Path, *, offset: int, compressed: bool, dtype: np.dtype[Any], size: tuple[int, int, int]
) -> NDArray[Any]:
    """The voxels (k, j, i) that begin at `offset`, raw or in one deflate stream (zlib or gzip).

    Raises VolumeError: TRUNCATED where there are fewer than the size says, TOO_LARGE where there are more,
    NON_FINITE.
    """
    shape = (size[2], size[1], size[0])
    expected = size[0] * size[1] * size[2] * dtype.itemsize
    on_disk = path.stat().st_size - offset
    if on_disk * (_MAX_DEFLATE_RATIO if compressed else 1) < expected:
        raise VolumeError("TRUNCATED", "the file is too short for the voxels that its header claims")
    if not compressed and on_disk > expected + 1:
        raise VolumeError("TOO_LARGE", "the file holds more than its header says")
    with path.open("rb") as file:
        file.seek(offset)
        raw = _inflated(file.read(), expected) if compressed else file.read(expected)
    voxels = np.frombuffer(raw, dtype=dtype).reshape(shape)
    if dtype.kind == "f" and not np.isfinite(voxels).all():
        raise VolumeError("NON_FINITE", "the file has voxels that are NaN or infinite; replace them")
    return voxels.astype(dtype.newbyteorder("="), copy=False)


def triple(values: Sequence[float]) -> Triple:
    """Three numbers as a triple."""
    first, second, third = values
    return (first, second, third)


def _inflated(packed: bytes, expected: int) -> bytes:
    inflater = zlib.decompressobj(wbits=47)
    try:
        raw = inflater.decompress(packed, expected + 1)
    except zlib.error as error:
        raise VolumeError("TRUNCATED", "the compressed voxels are damaged; send the file again") from error
    if len(raw) > expected:
        raise VolumeError("TOO_LARGE", "the file holds more than its header says")
    if len(raw) < expected or not inflater.eof:
        raise VolumeError("TRUNCATED", "the file is cut off or damaged; send it again")
    return raw
