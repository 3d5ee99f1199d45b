"""Writes volumes as files for clients."""

from __future__ import annotations

from pathlib import Path

from rekindle.errors import InvalidInput
from rekindle.vocabulary import FileFormat
from rekindle_imaging.metaimage import write_metaimage
from rekindle_imaging.nrrd import write_nrrd
from rekindle_imaging.volume import Volume

from rekindle_inference.adapters.nifti import NiftiWriter


class FileWriter:
    """NIfTI, NRRD and MetaImage; equal volumes give equal bytes."""

    def __init__(self) -> None:
        self._nifti = NiftiWriter()

    def write(self, volume: Volume, format: FileFormat, folder: Path) -> Path:
        """`volume.*` in `folder`. InvalidInput (UNWRITABLE_FORMAT) for formats that are only read."""
        if format is FileFormat.NIFTI:
            return self._nifti.write(volume, folder)
        if format is FileFormat.NRRD:
            path = folder / "volume.nrrd"
            write_nrrd(volume, path)
            return path
        if format is FileFormat.METAIMAGE:
            path = folder / "volume.mha"
            write_metaimage(volume, path)
            return path
        raise InvalidInput(
            f"{format} cannot be written: ask for NIfTI, NRRD or MetaImage, or for masks of DICOM images DICOM_SEG",
            reason="UNWRITABLE_FORMAT",
        )
