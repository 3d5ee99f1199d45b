"""NRRD, read by hand: nothing in a file can point to another one, and no locale matters."""

import re
from pathlib import Path
from typing import Any, Final

import numpy as np
import SimpleITK as sitk

from rekindle_imaging.errors import VolumeError
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.raw_voxels import numbers, read_voxels, sizes, start_of, triple
from rekindle_imaging.volume import Volume

_MAGIC: Final = re.compile(rb"NRRD000[1-5]\r?\n")
_TYPES: Final = {
    **dict.fromkeys(("signed char", "int8", "int8_t"), "i1"),
    **dict.fromkeys(("uchar", "unsigned char", "uint8", "uint8_t"), "u1"),
    **dict.fromkeys(("short", "short int", "signed short", "signed short int", "int16", "int16_t"), "i2"),
    **dict.fromkeys(("ushort", "unsigned short", "unsigned short int", "uint16", "uint16_t"), "u2"),
    **dict.fromkeys(("int", "signed int", "int32", "int32_t"), "i4"),
    **dict.fromkeys(("uint", "unsigned int", "uint32", "uint32_t"), "u4"),
    "float": "f4",
    "double": "f8",
}
#: Factors that turn coordinates of a space into LPS.
_SPACES: Final = {
    **dict.fromkeys(("left-posterior-superior", "lps"), (1.0, 1.0, 1.0)),
    **dict.fromkeys(("right-anterior-superior", "ras"), (-1.0, -1.0, 1.0)),
    **dict.fromkeys(("left-anterior-superior", "las"), (1.0, -1.0, 1.0)),
}
_ENCODINGS: Final = {"raw": False, "gzip": True, "gz": True}


def read_nrrd(path: Path, *, max_voxels: int) -> Volume:
    """Volume of a single-file NRRD with raw or gzip voxels and a space of LPS, RAS or LAS.

    Raises VolumeError: NOT_A_VOLUME, DETACHED_DATA (it points to another file), UNSUPPORTED_ENCODING, NOT_3D,
    BAD_GEOMETRY, TOO_LARGE, TRUNCATED, NON_FINITE.
    """
    fields, offset = _header(start_of(path))
    size = sizes(_required(fields, "sizes"), _dimensions(fields), max_voxels)
    geometry = _geometry(fields, size)
    encoding = _required(fields, "encoding").lower()
    if encoding not in _ENCODINGS:
        raise VolumeError("UNSUPPORTED_ENCODING", "the voxels must be stored raw or with gzip; save the file so")
    voxels = read_voxels(path, offset=offset, compressed=_ENCODINGS[encoding], dtype=_dtype(fields), size=size)
    return Volume(voxels, geometry)


def write_nrrd(volume: Volume, path: Path) -> None:
    """Writes an int16 or uint8 volume as NRRD in LPS, gzip; equal volumes give equal bytes."""
    sitk.WriteImage(volume.to_sitk(), str(path), useCompression=True, compressionLevel=1)


def _header(start: bytes) -> tuple[dict[str, str], int]:
    """Fields by lower-case name, and where the voxels begin."""
    magic = _MAGIC.match(start)
    if magic is None:
        raise VolumeError("NOT_A_VOLUME", "the file is no NRRD volume")
    end = re.compile(rb"\r?\n\r?\n").search(start, magic.end() - 1)
    if end is None:
        raise VolumeError("TRUNCATED", "the header does not end, or is longer than any header is")
    fields: dict[str, str] = {}
    for line in start[magic.end() : end.start()].decode("latin-1").splitlines():
        name, separator, value = line.partition(":")
        if line.startswith("#") or value.startswith("="):
            continue  # a comment, or a key that only its writer understands
        name = name.strip().lower()
        if not separator or name in fields:
            raise VolumeError("NOT_A_VOLUME", "the header has a line that is no field, or a field twice")
        fields[name] = value.strip()
    _check_self_contained(fields)
    return fields, end.end()


def _check_self_contained(fields: dict[str, str]) -> None:
    if {"data file", "datafile"} & set(fields):
        raise VolumeError("DETACHED_DATA", "the header points to another file; save header and voxels in one .nrrd")
    for name in ("line skip", "lineskip", "byte skip", "byteskip"):
        if fields.get(name, "0") != "0":
            raise VolumeError("NOT_A_VOLUME", "headers that skip bytes or lines are not taken")


def _geometry(fields: dict[str, str], size: tuple[int, int, int]) -> Geometry:
    if "space" not in fields or "space directions" not in fields or "space origin" not in fields:
        raise VolumeError("BAD_GEOMETRY", "the header lacks space, space directions or space origin; save them too")
    factors = _SPACES.get(fields["space"].lower())
    if factors is None:
        raise VolumeError("BAD_GEOMETRY", "the space must be left-posterior-superior or another of LPS, RAS, LAS")
    vectors = re.findall(r"\(([^()]*)\)", fields["space directions"])
    if len(vectors) != 3:
        raise VolumeError("BAD_GEOMETRY", "space directions must be three vectors")
    columns = [numbers(vector.replace(",", " "), 3, "each of the space directions") for vector in vectors]
    axes = np.asarray(columns, dtype=np.float64).T * np.asarray(factors)[:, None]
    spacing = np.linalg.norm(axes, axis=0)
    if not (np.isfinite(spacing).all() and spacing.min() > 0):
        raise VolumeError("BAD_GEOMETRY", "one of the space directions has no length")
    origin = numbers(fields["space origin"].strip("()").replace(",", " "), 3, "space origin")
    return Geometry(
        size=size,
        spacing_mm=triple([float(x) for x in spacing]),
        origin_mm=triple([x * factor for x, factor in zip(origin, factors, strict=True)]),
        direction=tuple(float(x) for x in (axes / spacing).ravel()),
    )


def _dimensions(fields: dict[str, str]) -> int:
    text = _required(fields, "dimension")
    return int(text) if re.fullmatch(r"\d{1,2}", text) else 0


def _dtype(fields: dict[str, str]) -> np.dtype[Any]:
    code = _TYPES.get(_required(fields, "type").lower())
    if code is None:
        raise VolumeError("NOT_A_VOLUME", "the type of the voxels is no plain number")
    endian = fields.get("endian", "little" if code.endswith("1") else "").lower()
    if endian not in ("little", "big"):
        raise VolumeError("NOT_A_VOLUME", "the header does not say whether the voxels are little or big endian")
    return np.dtype(("<" if endian == "little" else ">") + code)


def _required(fields: dict[str, str], name: str) -> str:
    if not fields.get(name):
        raise VolumeError("NOT_A_VOLUME", f"the header lacks the field {name!r}")
    return fields[name]
