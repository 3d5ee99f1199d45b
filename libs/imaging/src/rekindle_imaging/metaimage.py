"""MetaImage in one file (.mha), read by hand: nothing in a file can point to another one."""

import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import SimpleITK as sitk

from rekindle_imaging.errors import VolumeError
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.raw_voxels import MAX_HEADER_BYTES, numbers, read_voxels, sizes, start_of, triple
from rekindle_imaging.volume import Volume

_TYPES: Final = {
    "MET_CHAR": "i1",
    "MET_UCHAR": "u1",
    "MET_SHORT": "i2",
    "MET_USHORT": "u2",
    "MET_INT": "i4",
    "MET_UINT": "u4",
    "MET_FLOAT": "f4",
    "MET_DOUBLE": "f8",
}
_MATRIX: Final = ("TransformMatrix", "Rotation", "Orientation")
_ORIGIN: Final = ("Offset", "Position", "Origin")
_BIG_ENDIAN: Final = ("BinaryDataByteOrderMSB", "ElementByteOrderMSB")


def read_metaimage(path: Path, *, max_voxels: int) -> Volume:
    """Volume of a MetaImage whose voxels follow the header, raw or compressed, in LPS as ITK takes them.

    Raises VolumeError: NOT_A_VOLUME, DETACHED_DATA (it points to another file), UNSUPPORTED_ENCODING, NOT_3D,
    BAD_GEOMETRY, TOO_LARGE, TRUNCATED, NON_FINITE.
    """
    fields, offset = _header(start_of(path))
    dimensions = _required(fields, "NDims")
    size = sizes(_required(fields, "DimSize"), int(dimensions) if dimensions.isdecimal() else 0, max_voxels)
    geometry = _geometry(fields, size)
    _check_plain(fields)
    compressed = _is_true(fields, "CompressedData")
    return Volume(read_voxels(path, offset=offset, compressed=compressed, dtype=_dtype(fields), size=size), geometry)


def write_metaimage(volume: Volume, path: Path) -> None:
    """Writes an int16 or uint8 volume as a compressed .mha; equal volumes give equal bytes."""
    sitk.WriteImage(volume.to_sitk(), str(path), useCompression=True, compressionLevel=1)


def _header(start: bytes) -> tuple[dict[str, str], int]:
    """Fields by name, and where the voxels begin: after the line ElementDataFile."""
    fields: dict[str, str] = {}
    position = 0
    while "ElementDataFile" not in fields:
        end = start.find(b"\n", position)
        line = start[position:end].decode("latin-1") if end >= 0 else ""
        name, separator, value = line.partition("=")
        if not separator or not re.fullmatch(r"[!-<>-~]{1,256} *", name) or name.strip() in fields:
            cut_off = bool(fields) and end < 0 and len(start) < MAX_HEADER_BYTES
            if cut_off:
                raise VolumeError("TRUNCATED", "the file ends inside its header")
            raise VolumeError("NOT_A_VOLUME", "the file is no MetaImage (.mha), or its header is damaged")
        fields[name.strip()] = value.strip()
        position = end + 1
    if fields["ElementDataFile"] != "LOCAL":
        raise VolumeError("DETACHED_DATA", "the header points to another file; save header and voxels in one .mha")
    return fields, position


def _check_plain(fields: dict[str, str]) -> None:
    if fields.get("ObjectType", "Image") != "Image" or fields.get("ElementNumberOfChannels", "1") != "1":
        raise VolumeError("NOT_A_VOLUME", "the file holds no image with one value per voxel")
    if not _is_true(fields, "BinaryData") or fields.get("HeaderSize", "0") != "0":
        raise VolumeError("UNSUPPORTED_ENCODING", "the voxels must follow the header in binary; save the file so")


def _geometry(fields: dict[str, str], size: tuple[int, int, int]) -> Geometry:
    spacing = numbers(_required(fields, "ElementSpacing"), 3, "ElementSpacing")
    origin = numbers(_any(fields, _ORIGIN), 3, "Offset")
    # Each three numbers are the direction of one axis.
    axes = np.asarray(numbers(_any(fields, _MATRIX), 9, "TransformMatrix")).reshape(3, 3).T
    return Geometry(
        size=size,
        spacing_mm=triple(spacing),
        origin_mm=triple(origin),
        direction=tuple(float(x) for x in axes.ravel()),
    )


def _dtype(fields: dict[str, str]) -> np.dtype[Any]:
    code = _TYPES.get(_required(fields, "ElementType"))
    if code is None:
        raise VolumeError("NOT_A_VOLUME", "the type of the voxels is no plain number")
    return np.dtype((">" if any(_is_true(fields, name) for name in _BIG_ENDIAN) else "<") + code)


def _is_true(fields: dict[str, str], name: str) -> bool:
    return fields.get(name, "False").lower() in ("true", "1")


def _any(fields: dict[str, str], names: tuple[str, ...]) -> str:
    found = [fields[name] for name in names if name in fields]
    if len(found) != 1:
        raise VolumeError("BAD_GEOMETRY", f"the header must say exactly one of {', '.join(names)}")
    return found[0]


def _required(fields: dict[str, str], name: str) -> str:
    if not fields.get(name):
        raise VolumeError("NOT_A_VOLUME", f"the header lacks the field {name}")
    return fields[name]
