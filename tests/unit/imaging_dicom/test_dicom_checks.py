"""Series that are no regular grid are refused, each for its own reason, with words that say what to do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from dicom_phantom import archive, as_mr, compressed, enhanced, instance, packed, series, stored_values, to_bytes
from pydicom.uid import JPEG2000Lossless, SecondaryCaptureImageStorage
from rekindle_imaging.dicom.series import files_in, look_through, read_series, single_series
from rekindle_imaging.errors import VolumeError

STORED = stored_values()


def refusal(data: bytes) -> VolumeError:
    view = memoryview(data)
    with pytest.raises(VolumeError) as caught:
        read_series(view, single_series(look_through(view, files_in(view))), max_voxels=2**20)
    return caught.value


def without(*numbers: int) -> bytes:
    return packed(dataset for number, dataset in enumerate(series(STORED)) if number not in numbers)


def moved(number: int, *by: float) -> bytes:
    def move(dataset: Any, at: int) -> None:
        if at == number:
            dataset.ImagePositionPatient = [a + b for a, b in zip(dataset.ImagePositionPatient, by, strict=True)]

    return packed(series(STORED, move))


def changed(only: int | None = None, **elements: Any) -> bytes:
    def change(dataset: Any, at: int) -> None:
        for keyword, value in elements.items():
            if only not in (None, at):
                continue
            if value is None:
                delattr(dataset, keyword)
            else:
                setattr(dataset, keyword, value)

    return packed(series(STORED, change))


def tilted() -> bytes:
    def tilt(dataset: Any, at: int) -> None:
        x, y, z = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y + 0.7 * at, z]

    return packed(series(STORED, tilt))


def twice_the_same_uid() -> bytes:
    other = instance(STORED[0], 3)
    return archive([*(to_bytes(dataset) for dataset in series(STORED)), to_bytes(other)])


def another_size() -> bytes:
    wide = instance(np.zeros((8, 7), np.uint16), 2)
    return packed([*series(STORED)[:2], wide, *series(STORED)[3:]])


def several_frames() -> bytes:
    image = instance(STORED[:2], 0, NumberOfFrames=2)
    image.Rows, image.Columns = STORED.shape[1:]
    return to_bytes(image)


def fewer_groups() -> bytes:
    image = enhanced(STORED)
    del image.PerFrameFunctionalGroupsSequence[0]
    return to_bytes(image)


CASES: list[tuple[str, Callable[[], bytes], str]] = [
    ("MISSING_SLICES", lambda: without(2), "8.00 mm instead of 4.00 mm after the 2nd slice"),
    (
        "MISSING_SLICES",
        lambda: packed(d for n, d in enumerate(series(stored_values((9, 8, 6)))) if n not in (4, 5)),
        "2 slices",
    ),
    ("UNEVEN_SPACING", lambda: moved(2, 0, 0, 1.0), "resample"),
    ("DUPLICATE_SLICES", lambda: moved(2, 0, 0, -4.0), "the 2nd slice"),
    ("DUPLICATE_SLICES", twice_the_same_uid, "same SOP Instance UID"),
    ("MIXED_ORIENTATION", lambda: changed(1, ImageOrientationPatient=[0, 1, 0, 0, 0, -1]), "one orientation"),
    ("TILTED_GANTRY", tilted, "2.8 mm"),
    ("TILTED_GANTRY", lambda: moved(4, 30, 0, 0), "30.0 mm"),
    ("SIZE_MISMATCH", another_size, "rows or columns"),
    ("SIZE_MISMATCH", lambda: changed(1, PixelSpacing=[1, 1]), "PixelSpacing"),
    ("SEVERAL_SERIES", lambda: changed(1, SeriesInstanceUID="1.2.3.77"), "UploadStudy"),
    ("MISSING_TAG", lambda: changed(1, ImagePositionPatient=None), "ImagePositionPatient"),
    ("MISSING_TAG", lambda: changed(1, ImageOrientationPatient=None), "ImageOrientationPatient"),
    ("MISSING_TAG", lambda: changed(1, PixelSpacing=None), "PixelSpacing"),
    ("MISSING_TAG", lambda: changed(RescaleIntercept=None), "HU are unknown"),
    ("MISSING_TAG", lambda: to_bytes(instance(STORED[0], 0, SliceThickness=None)), "SliceThickness"),
    ("BAD_GEOMETRY", lambda: changed(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "right angles"),
    ("BAD_GEOMETRY", lambda: changed(PixelSpacing=[0, 1]), "PixelSpacing"),
    ("BAD_RESCALE", lambda: changed(RescaleSlope=0), "0"),
    ("OUT_OF_RANGE", lambda: changed(RescaleSlope=100), "rescale"),
    ("OUT_OF_RANGE", lambda: changed(RescaleSlope=0.001, RescaleIntercept=0.3), "fractional"),
    ("NOT_AN_IMAGE", lambda: changed(1, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"),
    ("NOT_AN_IMAGE", lambda: changed(SOPClassUID=SecondaryCaptureImageStorage), "Secondary Capture"),
    ("NOT_AN_IMAGE", lambda: packed(series(STORED, lambda d, n: as_mr(d, n) if n else None)), "mixes"),
    ("MULTIFRAME", several_frames, "several frames"),
    ("MULTIFRAME", fewer_groups, "each of its frames"),
    ("BAD_PIXELS", lambda: changed(PhotometricInterpretation="PALETTE COLOR"), "grey"),
    ("BAD_PIXELS", lambda: changed(HighBit=15), "HighBit"),
    ("TOO_LARGE", lambda: packed(series(np.zeros((5, 512, 512), np.uint16))), "voxels"),
    (
        "NOT_DICOM",
        lambda: archive([*(to_bytes(d) for d in series(STORED)), b"Dear radiologist, " * 40]),
        "DICOM files only",
    ),
    ("NOT_DICOM", lambda: archive([]), "DICOM files only"),
]


@pytest.mark.parametrize(("reason", "make", "words"), CASES, ids=[f"{r}-{n}" for n, (r, _, _) in enumerate(CASES)])
def test_each_flaw_has_its_reason(reason: str, make: Callable[[], bytes], words: str) -> None:
    """The reason is for programs, the words name the flaw; neither quotes a UID or a name."""
    error = refusal(make())
    assert reason == error.reason
    assert words in error.message
    for secret in ("1.2.3", "Canary", "CANARY", "ACC-0815"):
        assert secret not in error.message


@pytest.mark.parametrize(("syntax", "words"), [("1.2.840.10008.1.2.4.94", "JPIP"), ("1.2.3.4.5", "an unknown syntax")])
def test_a_compression_that_is_not_read_is_named_by_the_standard(syntax: str, words: str) -> None:
    """And one that the standard does not know is not repeated."""
    (made, *_) = series(STORED)
    raw = to_bytes(compressed(made, b"1234"), JPEG2000Lossless)
    error = refusal(raw.replace(JPEG2000Lossless.encode(), syntax.encode().ljust(len(JPEG2000Lossless), b"\0")))
    assert "UNDECODABLE_PIXELS" == error.reason
    assert words in error.message
    assert "1.2.3" not in error.message
