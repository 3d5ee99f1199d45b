"""The NIfTI-1 header, read by hand: what a file claims is checked before anything is allocated for it."""

import gzip
import math
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from rekindle_imaging.errors import VolumeError
from rekindle_imaging.geometry import MAX_SPACING_MM

_HEADER_BYTES: Final = 348
_CHUNK_BYTES: Final = 1 << 20
#: Deflate cannot do better than about 1032 to 1.
_MAX_GZIP_RATIO: Final = 1040
#: Bytes per voxel of the scalar data types.
_DATATYPES: Final = {2: 1, 4: 2, 8: 4, 16: 4, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8}
_FLOATS: Final = {16: "f4", 64: "f8"}
_GZIP_MAGIC: Final = b"\x1f\x8b"


@dataclass(frozen=True, kw_only=True)
class NiftiHeader:
    """What the checks need of a header."""

    #: (i, j, k)
    size: tuple[int, int, int]
    #: Offset and size of the voxels in bytes, uncompressed.
    offset: int
    content_bytes: int
    #: Type of floating-point voxels with their byte order; None for whole numbers.
    float_dtype: str | None
    compressed: bool


def check_header(path: Path, *, max_voxels: int) -> NiftiHeader:
    """Header of a single-file NIfTI-1, either byte order, plain or gzip; at most a few kilobytes are read.

    Four dimensions with one volume pass. Raises VolumeError: NOT_A_VOLUME, TRUNCATED, NOT_3D, BAD_GEOMETRY,
    TOO_LARGE.
    """
    with path.open("rb") as file:
        start = file.read(4096)
    compressed = start.startswith(_GZIP_MAGIC)
    raw = _inflate_start(start) if compressed else start
    order = _byte_order(raw)
    size = _size(struct.unpack_from(f"{order}8h", raw, 40))
    voxels = size[0] * size[1] * size[2]
    if voxels > max_voxels:
        raise VolumeError("TOO_LARGE", f"the header claims {voxels} voxels; at most {max_voxels} are taken")
    _check_spacing(struct.unpack_from(f"{order}8f", raw, 76))
    _check_forms(raw, order)
    offset = struct.unpack_from(f"{order}f", raw, 108)[0]
    if not (offset == 0 or 352 <= offset <= 1 << 24):
        raise VolumeError("NOT_A_VOLUME", "the header says that the voxels begin at an impossible place")
    start_of_voxels = max(int(offset), 352)
    content_bytes = voxels * _voxel_bytes(raw, order)
    on_disk = path.stat().st_size
    if on_disk * (_MAX_GZIP_RATIO if compressed else 1) < start_of_voxels + content_bytes:
        raise VolumeError("TRUNCATED", "the file is too short for the voxels that its header claims")
    float_type = _FLOATS.get(struct.unpack_from(f"{order}h", raw, 70)[0])
    return NiftiHeader(
        size=size,
        offset=start_of_voxels,
        content_bytes=content_bytes,
        float_dtype=float_type and order + float_type,
        compressed=compressed,
    )


def check_content(path: Path, header: NiftiHeader) -> None:
    """Reads the whole file in small pieces, keeping none: length, checksum and floats must be right.

    The reader behind SimpleITK fills what a cut-off file lacks with zeros and turns NaN into zero, both in
    silence, so neither can be left to it.
    Raises VolumeError: TRUNCATED, NON_FINITE, TOO_LARGE when the file holds much more than its header says.
    """
    total = 0
    try:
        with gzip.open(path, "rb") if header.compressed else path.open("rb") as file:
            file.seek(header.offset)
            while piece := file.read(_CHUNK_BYTES):
                _check_finite(piece[: max(0, header.content_bytes - total)], header.float_dtype)
                total += len(piece)
                if total > header.content_bytes + _CHUNK_BYTES:
                    raise VolumeError("TOO_LARGE", "the file holds more than its header says")
    except (EOFError, OSError, zlib.error) as error:
        raise VolumeError("TRUNCATED", "the file is cut off or damaged; send it again") from error
    if total < header.content_bytes:
        raise VolumeError("TRUNCATED", "the file is too short for the voxels that its header claims")


def _check_finite(piece: bytes, dtype: str | None) -> None:
    if dtype is None:
        return
    whole = len(piece) - len(piece) % np.dtype(dtype).itemsize
    if not np.isfinite(np.frombuffer(piece[:whole], dtype=dtype)).all():
        raise VolumeError("NON_FINITE", "the file has voxels that are NaN or infinite; replace them")


def _inflate_start(start: bytes) -> bytes:
    inflater = zlib.decompressobj(wbits=31)
    try:
        return inflater.decompress(start, 352)
    except zlib.error as error:
        raise VolumeError("NOT_A_VOLUME", "the file is neither NIfTI nor gzip") from error


def _byte_order(raw: bytes) -> str:
    if len(raw) < _HEADER_BYTES:
        # A gzip stream that ends inside the header is a cut-off volume only if its first bytes look like one.
        looks_right = raw[:4] in (struct.pack("<i", _HEADER_BYTES), struct.pack(">i", _HEADER_BYTES))
        if looks_right:
            raise VolumeError("TRUNCATED", "the file ends inside its header")
        raise VolumeError("NOT_A_VOLUME", "the file is no NIfTI volume")
    for order in "<>":
        if struct.unpack_from(f"{order}i", raw, 0)[0] == 540:
            raise VolumeError("NOT_A_VOLUME", "the file is NIfTI-2; convert it to NIfTI-1")
        if struct.unpack_from(f"{order}i", raw, 0)[0] == _HEADER_BYTES:
            if raw[344:348] != b"n+1\0":
                raise VolumeError("NOT_A_VOLUME", "the file is no single-file NIfTI-1 (.nii or .nii.gz)")
            return order
    raise VolumeError("NOT_A_VOLUME", "the file is no NIfTI volume")


def _size(dim: tuple[int, ...]) -> tuple[int, int, int]:
    if not 1 <= dim[0] <= 7:
        raise VolumeError("NOT_A_VOLUME", "the header has an impossible number of dimensions")
    used = dim[1 : dim[0] + 1]
    if min(used) < 1:
        raise VolumeError("NOT_A_VOLUME", "the header has a dimension of zero or less")
    if len(used) < 3:
        raise VolumeError("NOT_3D", "the image has fewer than three dimensions; send whole volumes")
    if any(n != 1 for n in used[3:]):
        raise VolumeError("NOT_3D", "the image has more than three dimensions; send one volume at a time")
    return (used[0], used[1], used[2])


def _check_spacing(pixdim: tuple[float, ...]) -> None:
    for spacing in pixdim[1:4]:
        if not math.isfinite(spacing) or spacing <= 0 or spacing > MAX_SPACING_MM * 1000:
            raise VolumeError("BAD_GEOMETRY", "the voxel spacing is NaN, zero, negative or beyond belief")


def _check_forms(raw: bytes, order: str) -> None:
    """The orientation must be finite and without shear; ITK would fall back to another one in silence."""
    qform_code, sform_code = struct.unpack_from(f"{order}2h", raw, 252)
    quaternion = struct.unpack_from(f"{order}6f", raw, 256)
    if qform_code > 0 and not np.isfinite(quaternion).all():
        raise VolumeError("BAD_GEOMETRY", "the orientation (qform) is not finite")
    if sform_code <= 0:
        return
    sform = np.asarray(struct.unpack_from(f"{order}12f", raw, 280), dtype=np.float64).reshape(3, 4)
    if not np.isfinite(sform).all():
        raise VolumeError("BAD_GEOMETRY", "the orientation (sform) is not finite")
    lengths = np.linalg.norm(sform[:, :3], axis=0)
    if lengths.min() <= 0:
        raise VolumeError("BAD_GEOMETRY", "the orientation (sform) has an axis of no length")
    spacing = np.asarray(struct.unpack_from(f"{order}3f", raw, 80), dtype=np.float64)
    if np.abs(lengths / spacing - 1).max() > 0.01:
        raise VolumeError("BAD_GEOMETRY", "the spacing of the sform and of pixdim differ; write the file anew")
    axes = sform[:, :3] / lengths
    # From 1e-4 on, ITK takes the qform instead of the sform and says nothing.
    if np.abs(axes @ axes.T - np.eye(3)).max() > 9e-5:
        raise VolumeError(
            "BAD_GEOMETRY", "the axes are sheared (sform; gantry tilt?); resample to a grid with right angles"
        )


def _voxel_bytes(raw: bytes, order: str) -> int:
    datatype, bits = struct.unpack_from(f"{order}2h", raw, 70)
    size = _DATATYPES.get(datatype)
    if size is None:
        raise VolumeError("NOT_A_VOLUME", f"data type {datatype} is no plain number (colour, complex or unknown)")
    if bits not in (0, 8 * size):
        raise VolumeError("NOT_A_VOLUME", "the header's data type and bits per voxel contradict each other")
    return size
