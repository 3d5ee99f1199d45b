"""Writes volumes as gzip-compressed NIfTI-1."""

from __future__ import annotations

import gzip
import shutil
from pathlib import Path

import SimpleITK as sitk
from rekindle.errors import InvalidInput
from rekindle_imaging.volume import Volume

from rekindle_inference.domain.records import FileFormat

#: A third of the time of the usual level, for files that are about a tenth larger.
_GZIP_LEVEL = 1


class NiftiWriter:
    """The only format there is so far."""

    def write(self, volume: Volume, format: FileFormat, folder: Path) -> Path:
        """`volume.nii.gz` in `folder`; equal volumes give equal bytes."""
        if format is not FileFormat.NIFTI:
            raise InvalidInput(f"{format} cannot be written: ask for NIFTI", reason="UNWRITABLE_FORMAT")
        plain, packed = folder / "volume.nii", folder / "volume.nii.gz"
        sitk.WriteImage(volume.to_sitk(), str(plain), useCompression=False)
        with (
            plain.open("rb") as source,
            packed.open("wb") as target,
            gzip.GzipFile("", "wb", _GZIP_LEVEL, target, mtime=0) as pack,
        ):
            shutil.copyfileobj(source, pack, 1024 * 1024)
        plain.unlink()
        return packed
