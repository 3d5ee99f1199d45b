"""DICOM series that are made here, value by value: what a reader must find in them is known beforehand."""

from __future__ import annotations

import io
import random
import tarfile
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from pydicom import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    EnhancedMRImageStorage,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    MRImageStorage,
)

STUDY, SERIES, FRAME = "1.2.3.1", "1.2.3.1.1", "1.2.3.9"
ACCESSION = "ACC-0815"
#: (column, row, slice) of the default series.
SPACING = (1.5, 2.0, 4.0)
ORIGIN = (-50.0, -40.0, 100.0)

Change = Callable[[Dataset, int], None]


def stored_values(shape: tuple[int, int, int] = (5, 8, 6), *, bits: int = 12) -> np.ndarray:
    """Stored values (slices, rows, columns), different in every slice."""
    return np.random.default_rng(11).integers(0, 2**bits, shape).astype(np.uint16)


def instance(pixels: np.ndarray, number: int, **changes: Any) -> Dataset:
    """The `number`-th slice (rows, columns) of the default series; `changes` replace elements, None removes them."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    elements: dict[str, Any] = {
        "SOPClassUID": CTImageStorage,
        "SOPInstanceUID": f"1.2.3.1.1.{number + 1}",
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": SERIES,
        "FrameOfReferenceUID": FRAME,
        "AccessionNumber": ACCESSION,
        "PatientName": "Canary^Patient",
        "PatientID": "CANARY-ID",
        "PatientBirthDate": "",
        "PatientSex": "",
        "StudyDate": "20200101",
        "StudyTime": "101010",
        "StudyID": "1",
        "ReferringPhysicianName": "",
        "Manufacturer": "Maker",
        "Modality": "CT",
        "ImageType": ["ORIGINAL", "PRIMARY", "AXIAL"],
        "SeriesNumber": 1,
        "InstanceNumber": number + 1,
        "ImagePositionPatient": [ORIGIN[0], ORIGIN[1], ORIGIN[2] + SPACING[2] * number],
        "ImageOrientationPatient": [1, 0, 0, 0, 1, 0],
        "PixelSpacing": [SPACING[1], SPACING[0]],
        "SliceThickness": 4.0,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": pixels.shape[0],
        "Columns": pixels.shape[1],
        "BitsAllocated": 16,
        "BitsStored": 12,
        "HighBit": 11,
        "PixelRepresentation": 0,
        "RescaleSlope": 1,
        "RescaleIntercept": -1024,
        **changes,
    }
    for keyword, value in elements.items():
        if value is not None:
            setattr(dataset, keyword, value)
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    return dataset


def series(stored: np.ndarray, change: Change | None = None, **changes: Any) -> list[Dataset]:
    """A series of CT slices, bottom first; `change` alters each, `changes` replace elements in all."""
    made = [instance(pixels, number, **changes) for number, pixels in enumerate(stored)]
    for number, dataset in enumerate(made):
        if change is not None:
            change(dataset, number)
    return made


def as_mr(dataset: Dataset, _number: int) -> None:
    dataset.SOPClassUID, dataset.Modality = MRImageStorage, "MR"


def enhanced(stored: np.ndarray, **changes: Any) -> Dataset:
    """One Enhanced MR with all slices, in an order of frames that is not that of space."""
    order = [*range(0, len(stored), 2), *range(1, len(stored), 2)]
    image = instance(stored[order], 0, SOPClassUID=EnhancedMRImageStorage, Modality="MR", **changes)
    image.Rows, image.Columns = stored.shape[1:]
    image.NumberOfFrames = len(stored)
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "SliceThickness"):
        delattr(image, keyword)
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        delattr(image, keyword)
    image.SharedFunctionalGroupsSequence = [
        _item(
            PlaneOrientationSequence=[_item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelMeasuresSequence=[_item(PixelSpacing=[SPACING[1], SPACING[0]], SliceThickness=4.0)],
        )
    ]
    image.PerFrameFunctionalGroupsSequence = [
        _item(
            PlanePositionSequence=[_item(ImagePositionPatient=[ORIGIN[0], ORIGIN[1], ORIGIN[2] + SPACING[2] * number])],
            PixelValueTransformationSequence=[_item(RescaleSlope=2, RescaleIntercept=0, RescaleType="US")],
        )
        for number in order
    ]
    return image


def to_bytes(dataset: Dataset, syntax: UID = ExplicitVRLittleEndian, *, preamble: bytes = b"\0" * 128) -> bytes:
    """A Part-10 file."""
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.preamble = preamble
    file = io.BytesIO()
    little = syntax != ExplicitVRBigEndian
    implicit = syntax.is_implicit_VR if not syntax.is_encapsulated else False
    dataset.save_as(file, enforce_file_format=True, little_endian=little, implicit_vr=implicit)
    return file.getvalue()


def compressed(dataset: Dataset, stream: bytes) -> Dataset:
    """The same instance with its pixels as one compressed stream."""
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True
    return dataset


def archive(files: Iterable[bytes], *, shuffle: int | None = 1, names: Callable[[int], str] = str) -> bytes:
    """A ustar archive of files, in an order drawn from the seed `shuffle` (None: as given)."""
    listed = list(files)
    if shuffle is not None:
        random.Random(shuffle).shuffle(listed)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for number, data in enumerate(listed):
            member = tarfile.TarInfo(names(number))
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def packed(datasets: Iterable[Dataset], syntax: UID = ExplicitVRLittleEndian) -> bytes:
    """An archive of a series."""
    return archive(to_bytes(dataset, syntax) for dataset in datasets)


def deflated(dataset: Dataset) -> bytes:
    return to_bytes(dataset, DeflatedExplicitVRLittleEndian)


def _item(**elements: Any) -> Dataset:
    item = Dataset()
    for keyword, value in elements.items():
        setattr(item, keyword, value)
    return item
