"""Folders of DICOM files as one archive, the form in which series and studies travel."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path

from rekindle.errors import InvalidInput

_MAGIC_AT = 128
_MAGIC = b"DICM"


def is_dicom(path: Path) -> bool:
    """Whether a file begins like a DICOM file (Part 10)."""
    with path.open("rb") as file:
        return file.read(_MAGIC_AT + len(_MAGIC))[_MAGIC_AT:] == _MAGIC


def dicom_files(folder: Path) -> Iterator[Path]:
    """The DICOM files of a folder and the folders in it, by name; other files are passed over, links not followed."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or path.is_symlink():
            continue
        if path.is_dir():
            yield from dicom_files(path)
        elif path.is_file() and path.name.upper() != "DICOMDIR" and is_dicom(path):
            yield path


def archive_of(folder: Path) -> bytes:
    """The DICOM files of a folder as a ustar archive: the same bytes for the same files, with no names of theirs.

    Raises InvalidInput for a folder without DICOM files.
    """
    packed = io.BytesIO()
    count = 0
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for count, path in enumerate(dicom_files(folder), start=1):
            member = tarfile.TarInfo(f"{count:06d}.dcm")
            member.size = path.stat().st_size
            with path.open("rb") as file:
                tar.addfile(member, file)
    if count == 0:
        raise InvalidInput(f"{folder.name} holds no DICOM files; give a folder of a series or a study")
    return packed.getvalue()
