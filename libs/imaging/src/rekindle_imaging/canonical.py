"""The canonical form of a volume: deterministic bytes, named by their SHA-256, verified when read."""

import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any, Final, cast

import numpy as np
import zstandard
from numpy.typing import NDArray

from rekindle_imaging.errors import VolumeError
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume

MAGIC: Final = b"RKVOL1\n"
#: 512 x 512 x 1024 voxels.
MAX_VOXELS: Final = 2**28
_LEVEL: Final = 3
#: Largest size of the JSON header, in bytes.
MAX_HEADER_BYTES: Final = 65_536
_DTYPES: Final = {"image": "int16", "mask": "uint8"}


def encode(volume: Volume, kind: str) -> bytes:
    """Canonical bytes of an image (stored as int16) or a mask (stored as uint8).

    Magic, 4-byte little-endian header length, JSON header (sorted keys, compact), zstd of the voxels in
    C order (k, j, i). Equal volumes give equal bytes.
    Raises VolumeError: OUT_OF_RANGE or NON_FINITE for an image, NOT_A_MASK for a mask whose values are no
    whole numbers from 0 to 255.
    """
    dtype = _DTYPES.get(kind)
    if dtype is None:
        raise VolumeError("BAD_CANONICAL", f"kind must be one of {sorted(_DTYPES)}")
    voxels = to_int16(volume.voxels) if kind == "image" else to_labels(volume.voxels)
    header = _header_bytes(dtype, volume.geometry, kind)
    raw = np.ascontiguousarray(voxels, dtype=np.dtype(dtype).newbyteorder("<"))
    packed = zstandard.ZstdCompressor(level=_LEVEL, write_checksum=True).compress(raw.data)
    return MAGIC + struct.pack("<I", len(header)) + header + packed


def read_header(data: bytes) -> dict[str, Any]:
    """The header of canonical bytes: dtype, geometry, kind. Raises VolumeError("BAD_CANONICAL")."""
    header, _ = _split(data)
    return header


def decode(data: bytes, *, max_voxels: int = MAX_VOXELS, expected_digest: str | None = None) -> Volume:
    """The volume in canonical bytes.

    Everything is checked before memory is taken: magic, header, size against `max_voxels`, the compressed
    frame's own size; then the frame's checksum. `expected_digest` also covers the header: give it wherever
    it is known. Raises VolumeError: BAD_CANONICAL, TOO_LARGE, BAD_GEOMETRY, DIGEST_MISMATCH.
    """
    if expected_digest is not None and digest(data) != expected_digest:
        raise VolumeError("DIGEST_MISMATCH", "the stored bytes are not those that the digest names")
    header, offset = _split(data)
    geometry = Geometry.from_dict(header["geometry"])
    if geometry.voxels > max_voxels:
        raise VolumeError("TOO_LARGE", f"the volume has more than {max_voxels} voxels")
    dtype = np.dtype(header["dtype"]).newbyteorder("<")
    raw = _decompress(memoryview(data)[offset:], geometry.voxels * dtype.itemsize)
    voxels = np.frombuffer(raw, dtype=dtype).reshape(geometry.shape)
    return Volume(voxels.astype(dtype.newbyteorder("="), copy=False), geometry)


def digest(data: bytes) -> str:
    """SHA-256 of the bytes, in hex: the name that canonical objects go by."""
    return hashlib.sha256(data).hexdigest()


def to_int16(voxels: NDArray[Any]) -> NDArray[np.int16]:
    """Voxels as int16; floats are rounded to the nearest. Raises VolumeError: NON_FINITE, OUT_OF_RANGE."""
    if voxels.dtype == np.int16:
        return voxels
    low, high = float(voxels.min()), float(voxels.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise VolumeError("NON_FINITE", "the image has voxels that are NaN or infinite; replace them")
    if low < -32768.5 or high >= 32767.5:
        raise VolumeError("OUT_OF_RANGE", "the image has values outside -32768 to 32767; rescale it")
    if voxels.dtype.kind != "f":
        return voxels.astype(np.int16)
    if high > low and high - low < 16 and not np.array_equal(np.rint(voxels), voxels):
        raise VolumeError(
            "OUT_OF_RANGE", "the fractional values span less than 16, whole numbers cannot hold them; rescale"
        )
    return np.rint(voxels).astype(np.int16)


def to_labels(voxels: NDArray[Any]) -> NDArray[np.uint8]:
    """Voxels as uint8 labels. Raises VolumeError("NOT_A_MASK") unless all are whole numbers from 0 to 255."""
    if voxels.dtype == np.uint8:
        return voxels
    low, high = float(voxels.min()), float(voxels.max())
    if not (low >= 0 and high <= 255):
        raise VolumeError("NOT_A_MASK", "a mask holds whole numbers from 0 to 255")
    labels = voxels.astype(np.uint8)
    if voxels.dtype.kind == "f" and not np.array_equal(labels, voxels):
        raise VolumeError("NOT_A_MASK", "a mask holds whole numbers from 0 to 255; this one has fractions")
    return labels


def _header_bytes(dtype: str, geometry: Geometry, kind: str) -> bytes:
    fields = {"dtype": dtype, "geometry": geometry.to_dict(), "kind": kind}
    return json.dumps(fields, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _split(data: bytes) -> tuple[dict[str, Any], int]:
    start = len(MAGIC) + 4
    if data[: len(MAGIC)] != MAGIC or len(data) < start:
        raise VolumeError("BAD_CANONICAL", "these are not the bytes of a canonical volume")
    (length,) = struct.unpack_from("<I", data, len(MAGIC))
    if length > MAX_HEADER_BYTES or start + length > len(data):
        raise VolumeError("BAD_CANONICAL", "the header is cut off or too long")
    header = _guarded(lambda: json.loads(data[start : start + length]), "the header is not JSON")
    if not isinstance(header, dict) or set(cast("dict[str, Any]", header)) != {"dtype", "geometry", "kind"}:
        raise VolumeError("BAD_CANONICAL", "the header must hold dtype, geometry and kind, and nothing else")
    fields = cast("dict[str, Any]", header)
    if not isinstance(fields["kind"], str) or _DTYPES.get(fields["kind"]) != fields["dtype"]:
        raise VolumeError("BAD_CANONICAL", "an image is int16 and a mask uint8")
    if not isinstance(fields["geometry"], dict):
        raise VolumeError("BAD_CANONICAL", "the geometry must be an object")
    geometry = Geometry.from_dict(cast("dict[str, Any]", fields["geometry"]))
    if _header_bytes(fields["dtype"], geometry, fields["kind"]) != data[start : start + length]:
        raise VolumeError("BAD_CANONICAL", "the header is not written in the canonical way")
    return fields, start + length


def _decompress(packed: memoryview, expected_bytes: int) -> bytes:
    claimed = _guarded(lambda: zstandard.frame_content_size(packed), "the voxels are damaged")
    if claimed != expected_bytes:
        raise VolumeError("BAD_CANONICAL", "the voxels do not fill the geometry")
    # Decompressing in one call bounds the output by the claimed size, even where the frame holds more.
    unpacker = zstandard.ZstdDecompressor()
    raw: bytes = _guarded(
        lambda: unpacker.decompress(packed, allow_extra_data=False), "the voxels are damaged or cut off"
    )
    if len(raw) != expected_bytes:
        raise VolumeError("BAD_CANONICAL", "the voxels do not fill the geometry")
    return raw


def _guarded(read: Callable[[], Any], message: str) -> Any:
    try:
        return read()
    except (zstandard.ZstdError, ValueError, RecursionError) as error:
        raise VolumeError("BAD_CANONICAL", message) from error
