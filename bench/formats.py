"""Formats: a DICOM series with all its checks beside SimpleITK's series reader, and NRRD beside SimpleITK."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import SimpleITK as sitk
from pydicom import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian
from rekindle.dicom import archive_of
from rekindle_imaging.dicom.series import files_in, look_through, read_series, single_series
from rekindle_imaging.files import read_volume
from rekindle_imaging.nrrd import write_nrrd
from rekindle_imaging.volume import Volume

from bench.measure import Figure, Options, Row, alternate
from bench.phantom import abdomen

IN_PLANE_MM, SLICE_MM = 0.75, 2.0
MAX_VOXELS = 2**28


def measure(options: Options) -> list[Row]:
    slices, repeats = (20, 1) if options.quick else (200, 3)
    image, _ = abdomen(slices, 512, in_plane_mm=IN_PLANE_MM, slice_mm=SLICE_MM)
    return [*_dicom(options.folder, image, repeats), *_nrrd(options.folder, image, repeats)]


def _dicom(folder: Path, image: Volume, repeats: int) -> list[Row]:
    """From the archive that is sent, with every check, and from files in an order that is known."""
    series = folder / "series"
    series.mkdir()
    for k, pixels in enumerate(image.voxels):
        _slice(pixels, k).save_as(series / f"{k:05d}.dcm", enforce_file_format=True)
    paths = [str(path) for path in sorted(series.iterdir())]
    archive = memoryview(archive_of(series))

    def rekindle() -> None:
        instances = single_series(look_through(archive, files_in(archive)))
        read_series(archive, instances, max_voxels=MAX_VOXELS)

    def simpleitk() -> None:
        reader = sitk.ImageSeriesReader()
        reader.SetFileNames(paths)
        sitk.GetArrayFromImage(reader.Execute())

    ours, theirs = alternate(repeats, rekindle, simpleitk)
    return [
        Row(
            what=f"read a CT series of {len(paths)} x 512 x 512", unit="s", more_is_better=False,
            rekindle=Figure.of(ours), instead="SimpleITK ImageSeriesReader", other=Figure.of(theirs),
        )
    ]  # fmt: skip


def _nrrd(folder: Path, image: Volume, repeats: int) -> list[Row]:
    ours, theirs, picture = folder / "ours.nrrd", folder / "theirs.nrrd", image.to_sitk()
    written = alternate(
        repeats,
        lambda: write_nrrd(image, ours),
        lambda: sitk.WriteImage(picture, str(theirs), useCompression=True, compressionLevel=1),
    )
    read = alternate(
        repeats,
        lambda: read_volume(theirs, kind="image", format="nrrd"),
        lambda: sitk.GetArrayFromImage(sitk.ReadImage(str(theirs))),
    )
    shape = f"{len(image.voxels)} x 512 x 512 int16"
    return [
        Row(
            what=f"{what} .nrrd of {shape}", unit="s", more_is_better=False,
            rekindle=Figure.of(seconds[0]), instead="SimpleITK, the same level of gzip", other=Figure.of(seconds[1]),
        )
        for what, seconds in (("write", written), ("read", read))
    ]  # fmt: skip


def _slice(pixels: np.ndarray, k: int) -> Dataset:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID, made.SOPInstanceUID, made.Modality = CTImageStorage, f"1.2.3.{k + 1}", "CT"
    made.StudyInstanceUID, made.SeriesInstanceUID, made.FrameOfReferenceUID = "1.2", "1.2.3", "1.2.4"
    made.ImagePositionPatient, made.ImageOrientationPatient = [0, 0, SLICE_MM * k], [1, 0, 0, 0, 1, 0]
    made.PixelSpacing, made.RescaleSlope, made.RescaleIntercept = [IN_PLANE_MM, IN_PLANE_MM], 1, -1024
    made.Rows, made.Columns = pixels.shape
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.BitsAllocated, made.BitsStored, made.HighBit, made.PixelRepresentation = 16, 12, 11, 0
    made.PixelData = np.clip(pixels.astype(np.int32) + 1024, 0, 4095).astype("<u2").tobytes()
    made["PixelData"].VR = "OW"
    return made
