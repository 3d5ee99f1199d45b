"""Volumes in files: NIfTI, NRRD and MetaImage in, NIfTI out. Foreign files are checked before they are read."""

import tempfile
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Literal

import SimpleITK as sitk

from rekindle_imaging.canonical import MAX_VOXELS, to_int16, to_labels
from rekindle_imaging.errors import VolumeError
from rekindle_imaging.metaimage import read_metaimage
from rekindle_imaging.nifti_header import check_content, check_header
from rekindle_imaging.nrrd import read_nrrd
from rekindle_imaging.volume import Volume, geometry_of

Format = Literal["nifti", "nrrd", "metaimage"]


def read_volume(
    path: Path,
    *,
    kind: Literal["image", "mask"],
    format: Format = "nifti",
    max_voxels: int = MAX_VOXELS,
) -> Volume:
    """A volume from a single file: NIfTI-1 (plain or gzip, told by content, not by name), NRRD or MetaImage.

    Returns int16 voxels for an image (floats rounded, scl_slope applied) or uint8 labels for a mask, (k, j,
    i). Four dimensions of NIfTI are taken when the last is 1. Where ITK reads sform and qform, so does this.
    Raises VolumeError: NOT_A_VOLUME, TRUNCATED, NOT_3D, BAD_GEOMETRY, NON_FINITE, OUT_OF_RANGE, TOO_LARGE,
    NOT_A_MASK, UNKNOWN_FORMAT; for NRRD and MetaImage also DETACHED_DATA, UNSUPPORTED_ENCODING.
    """
    if format not in _READERS:
        raise VolumeError("UNKNOWN_FORMAT", f"the format must be one of: {', '.join(_READERS)}")
    volume = _READERS[format](path, max_voxels=max_voxels)
    voxels = to_int16(volume.voxels) if kind == "image" else to_labels(volume.voxels)
    return Volume(voxels, volume.geometry)


def read_nifti(path: Path, *, max_voxels: int) -> Volume:
    """Volume of a NIfTI-1 with the voxels' own type. Raises VolumeError as `read_volume` does."""
    header = check_header(path, max_voxels=max_voxels)
    check_content(path, header)
    with _named(path, ".nii.gz" if header.compressed else ".nii") as named:
        image = _read(named)
    volume = Volume.from_sitk(image)
    if volume.geometry.size != header.size:
        raise VolumeError("NOT_A_VOLUME", "the header is contradictory")
    return volume


def write_nifti(volume: Volume, path: Path) -> None:
    """Writes a gzip-compressed NIfTI-1; `path` ends in .nii.gz and is complete or absent."""
    if not path.name.endswith(".nii.gz"):
        raise VolumeError("UNKNOWN_FORMAT", "the file name must end in .nii.gz")
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=".writing-") as folder:
        unfinished = Path(folder) / "volume.nii.gz"
        sitk.WriteImage(volume.to_sitk(), str(unfinished), useCompression=True)
        unfinished.replace(path)


@contextmanager
def _named(path: Path, suffix: str) -> Generator[Path]:
    """The same file under a name that ends as the reader needs it."""
    other = ".nii.gz" if suffix == ".nii" else None
    if path.name.endswith(suffix) and not (other and path.name.endswith(other)):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        link = Path(folder) / f"volume{suffix}"
        link.symlink_to(path.resolve())
        yield link


def _read(path: Path) -> sitk.Image:
    reader = sitk.ImageFileReader()
    reader.SetImageIO("NiftiImageIO")
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        dimensions = reader.GetDimension()
        if dimensions > 3:
            # Asking for no extent along an axis drops it.
            reader.SetExtractSize([*reader.GetSize()[:3], *([0] * (dimensions - 3))])
        image = reader.Execute()
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise VolumeError("BAD_GEOMETRY", "the axes are sheared or degenerate (sform, qform)") from error
        raise VolumeError("NOT_A_VOLUME", "the file cannot be read as NIfTI") from error
    if image.GetDimension() == 3:
        geometry_of(image)
    return image


_READERS: Final[dict[str, Callable[..., Volume]]] = {
    "nifti": read_nifti,
    "nrrd": read_nrrd,
    "metaimage": read_metaimage,
}
