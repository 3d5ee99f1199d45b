"""DICOM series become the volumes that they are, in whatever order, syntax and form they come."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import (
    ACCESSION,
    FRAME,
    ORIGIN,
    SERIES,
    SPACING,
    STUDY,
    archive,
    as_mr,
    enhanced,
    instance,
    packed,
    series,
    stored_values,
    to_bytes,
)
from pydicom import dcmread
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)
from rekindle_imaging.dicom.codes import code_of
from rekindle_imaging.dicom.segmentation import Authorship, Segment, segmentation_bytes
from rekindle_imaging.dicom.series import SeriesVolume, files_in, look_through, read_series, single_series
from rekindle_imaging.volume import Volume


def read(data: bytes, max_voxels: int = 2**24) -> SeriesVolume:
    view = memoryview(data)
    return read_series(view, single_series(look_through(view, files_in(view))), max_voxels=max_voxels)


def test_a_series_in_any_order_is_its_volume() -> None:
    """HU by hand, slices by position and not by name or number, geometry in LPS."""
    stored = stored_values()
    found = read(packed(series(stored)))
    assert np.array_equal(stored.astype(np.int16) - 1024, found.volume.voxels)
    geometry = found.volume.geometry
    assert (6, 8, 5) == geometry.size
    assert (SPACING, ORIGIN) == (geometry.spacing_mm, geometry.origin_mm)
    assert (1, 0, 0, 0, 1, 0, 0, 0, 1) == geometry.direction
    assert "CT" == found.modality


def test_the_source_is_told_in_the_order_of_the_slices() -> None:
    """Study, series, frame of reference, accession, and the instances from the bottom up."""
    reference = read(packed(series(stored_values()))).reference
    assert (STUDY, SERIES, FRAME, ACCESSION) == (
        reference.study_instance_uid,
        reference.series_instance_uid,
        reference.frame_of_reference_uid,
        reference.accession_number,
    )
    assert tuple(f"1.2.3.1.1.{n}" for n in range(1, 6)) == reference.sop_instance_uids


@pytest.mark.parametrize(
    "syntax",
    [
        ImplicitVRLittleEndian,
        ExplicitVRLittleEndian,
        ExplicitVRBigEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
)
def test_every_usual_transfer_syntax_gives_the_same_voxels(syntax: object) -> None:
    """Encoded by pydicom and its plugins, decoded to what went in."""
    stored = stored_values((3, 32, 40))
    made = series(stored)
    for dataset in made:
        if syntax in (RLELossless, JPEGLSLossless, JPEG2000Lossless):
            dataset.compress(syntax, generate_instance_uid=False)
        elif syntax == ExplicitVRBigEndian:
            dataset.PixelData = np.frombuffer(dataset.PixelData, "<u2").astype(">u2").tobytes()
    assert np.array_equal(stored.astype(np.int16) - 1024, read(packed(made, syntax)).volume.voxels)


def test_lossless_jpeg_gives_the_same_voxels(tmp_path: Path) -> None:
    """Streams that ITK has encoded; JPEG lossless has no other free encoder."""
    stored = stored_values((3, 32, 40))
    made = []
    for number, dataset in enumerate(series(stored)):
        path = tmp_path / f"{number}.dcm"
        picture = sitk.GetImageFromArray(stored[number : number + 1])
        writer = sitk.ImageFileWriter()
        writer.SetImageIO("GDCMImageIO")
        writer.SetFileName(str(path))
        writer.SetUseCompression(True)
        writer.SetCompressor("JPEG")
        writer.Execute(picture)
        encoded = dcmread(path)
        assert JPEGLosslessSV1 == encoded.file_meta.TransferSyntaxUID
        dataset.PixelData, dataset.BitsStored, dataset.HighBit = encoded.PixelData, 16, 15
        dataset["PixelData"].VR, dataset["PixelData"].is_undefined_length = "OB", True
        made.append(dataset)
    assert np.array_equal(stored.astype(np.int16) - 1024, read(packed(made, JPEGLosslessSV1)).volume.voxels)


def test_bits_above_the_stored_ones_are_ignored() -> None:
    """Overlays live there in old files; and a sign is carried up from the highest stored bit."""
    stored = stored_values((2, 4, 4))
    with_rubbish = series(stored | 0xF000)
    assert np.array_equal(stored.astype(np.int16) - 1024, read(packed(with_rubbish)).volume.voxels)
    signed = series(stored, PixelRepresentation=1, RescaleIntercept=0)
    expected = np.where(stored > 2047, stored.astype(np.int32) - 4096, stored)
    assert np.array_equal(expected, read(packed(signed)).volume.voxels)


def test_slopes_are_applied_slice_by_slice_and_rounded() -> None:
    """As a PET or MR scanner scales each slice by itself."""
    stored = stored_values((3, 4, 4))

    def scale(dataset: object, number: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = 0.5 * (number + 1), 7

    found = read(packed(series(stored, scale))).volume.voxels
    expected = np.stack([np.rint(stored[n] * (0.5 * (n + 1)) + 7) for n in range(3)])
    assert np.array_equal(expected, found)


def test_mr_is_read_as_it_is_stored() -> None:
    """Without rescaling where the file has none."""
    stored = stored_values()
    found = read(packed(series(stored, as_mr, RescaleSlope=None, RescaleIntercept=None)))
    assert np.array_equal(stored, found.volume.voxels)
    assert "MR" == found.modality


def test_an_enhanced_image_is_its_frames_in_the_order_of_space() -> None:
    """One file with functional groups, frames interleaved, a slope of 2 per frame."""
    stored = stored_values()
    found = read(to_bytes(enhanced(stored)))
    assert np.array_equal(stored.astype(np.int16) * 2, found.volume.voxels)
    assert (SPACING, ORIGIN) == (found.volume.geometry.spacing_mm, found.volume.geometry.origin_mm)
    assert ("1.2.3.1.1.1",) == found.reference.sop_instance_uids


def test_a_segmentation_of_an_enhanced_image_refers_to_its_frames() -> None:
    """Frame by frame, at the positions of the mask's slices."""
    stored = stored_values()
    data = memoryview(to_bytes(enhanced(stored)))
    instances = single_series(look_through(data, files_in(data)))
    volume = read_series(data, instances, max_voxels=2**24).volume
    mask = np.zeros(stored.shape, np.uint8)
    mask[1, 2:4, 1:3], mask[4, 5:7, 2:5] = 3, 3
    code = code_of("liver")
    assert code is not None
    made = segmentation_bytes(
        data,
        instances,
        Volume(mask, volume.geometry),
        [Segment(label="liver", label_value=3, code=code)],
        Authorship(algorithm_type="MANUAL", created_at=datetime(2026, 1, 1, tzinfo=UTC)),
        max_voxels=2**24,
    )
    seg = dcmread(io.BytesIO(made))
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    frames = bits[: 2 * mask[0].size].reshape(2, *mask.shape[1:])
    for frame, group in zip(frames, seg.PerFrameFunctionalGroupsSequence, strict=True):
        k = round((float(group.PlanePositionSequence[0].ImagePositionPatient[2]) - ORIGIN[2]) / SPACING[2])
        assert np.array_equal(mask[k] == 3, frame)
        source = group.DerivationImageSequence[0].SourceImageSequence[0]
        assert "1.2.3.1.1.1" == source.ReferencedSOPInstanceUID
        # The image's frames are the even slices, then the odd ones.
        assert [*range(0, 5, 2), *range(1, 5, 2)][source.ReferencedFrameNumber - 1] == k


def test_one_slice_is_as_thick_as_it_says() -> None:
    """A bare Part-10 file, its spacing along k from SliceThickness."""
    found = read(to_bytes(instance(stored_values()[0], 0)))
    assert (6, 8, 1) == found.volume.geometry.size
    assert (1.5, 2.0, 4.0) == found.volume.geometry.spacing_mm


def test_a_file_that_is_there_twice_is_taken_once() -> None:
    """Byte by byte the same; anything else is an error."""
    files = [to_bytes(dataset) for dataset in series(stored_values())]
    assert 5 == read(archive([*files, files[2]])).volume.geometry.size[2]


def test_small_jitter_of_positions_is_rounding() -> None:
    """Positions written with two decimals do not make gaps."""

    def jitter(dataset: object, number: int) -> None:
        x, y, _ = dataset.ImagePositionPatient
        dataset.ImagePositionPatient = [x, y, round(0.6251 * number, 2)]

    spacing = read(packed(series(stored_values(), jitter))).volume.geometry.spacing_mm[2]
    assert 2.5 / 4 == pytest.approx(spacing)


@pytest.mark.parametrize(
    "orientation", [[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1], [0.8, 0.6, 0, 0.6, -0.8, 0]]
)
def test_geometry_and_voxels_are_those_of_simpleitk(tmp_path: Path, orientation: list[float]) -> None:
    """Axial, sagittal, coronal and turned; ITK reads the same files in the order along the normal."""
    stored = stored_values()
    normal = np.cross(orientation[:3], orientation[3:])

    def turn(dataset: object, number: int) -> None:
        dataset.ImageOrientationPatient = orientation
        dataset.ImagePositionPatient = [float(x) for x in np.asarray(ORIGIN) + 4.0 * number * normal]

    made = series(stored, turn)
    paths = []
    for number, dataset in enumerate(made):
        paths.append(tmp_path / f"{number}.dcm")
        paths[-1].write_bytes(to_bytes(dataset))
    reference = sitk.ReadImage([str(path) for path in paths])
    found = read(packed(made)).volume
    assert np.array_equal(sitk.GetArrayFromImage(reference), found.voxels)
    assert reference.GetSpacing() == pytest.approx(found.geometry.spacing_mm)
    assert reference.GetOrigin() == pytest.approx(found.geometry.origin_mm)
    assert reference.GetDirection() == pytest.approx(found.geometry.direction)


def test_reading_does_not_touch_the_archive() -> None:
    """The bytes are only looked at: the same archive is read again with the same result."""
    data = packed(series(stored_values()))
    before = bytes(data)
    assert np.array_equal(read(data).volume.voxels, read(data).volume.voxels)
    assert before == data
