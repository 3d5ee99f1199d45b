"""A real CT series with its label, which is not part of the repository: skipped only where its folder is absent."""

from __future__ import annotations

import io
import os
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import archive
from pydicom import dcmread
from rekindle_imaging.dicom.codes import code_of
from rekindle_imaging.dicom.segmentation import Authorship, Segment, segmentation_bytes
from rekindle_imaging.dicom.series import files_in, look_through, read_series, single_series
from rekindle_imaging.volume import Volume
from seg_by_hand import masks_of

ROOT = Path(__file__).resolve().parents[3]
DATA = Path(os.environ.get("REKINDLE_TEST_DATA", ROOT.parent / "shared" / "data")) / "dicom"

pytestmark = [
    pytest.mark.real_data,
    pytest.mark.skipif(not DATA.is_dir(), reason=f"no DICOM series in {DATA}; set REKINDLE_TEST_DATA"),
]


def reference() -> sitk.Image:
    """What SimpleITK's series reader makes of the files in the order of their positions."""
    paths = sorted(
        (DATA / "ct").iterdir(), key=lambda path: float(dcmread(path, stop_before_pixels=True).SliceLocation)
    )
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames([str(path) for path in paths])
    return reader.Execute()


def test_a_real_series_is_read_as_simpleitk_reads_it() -> None:
    """JPEG 2000, in any order: every HU and the geometry."""
    data = memoryview(archive([path.read_bytes() for path in (DATA / "ct").iterdir()]))
    found = read_series(data, single_series(look_through(data, files_in(data))), max_voxels=2**28).volume
    expected = reference()
    assert np.array_equal(sitk.GetArrayFromImage(expected), found.voxels)
    assert expected.GetSpacing() == pytest.approx(found.geometry.spacing_mm)
    assert expected.GetOrigin() == pytest.approx(found.geometry.origin_mm)
    assert expected.GetDirection() == pytest.approx(found.geometry.direction)


def with_uids() -> bytes:
    """The series with the study and series UIDs that were taken out of it, in memory only."""
    files: list[bytes] = []
    for path in (DATA / "ct").iterdir():
        dataset = dcmread(path)
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3.1", "1.2.3.1.1"
        out = io.BytesIO()
        dataset.save_as(out)
        files.append(out.getvalue())
    return archive(files)


def test_a_real_label_survives_as_a_segmentation() -> None:
    """Liver and spleen of the series' label, voxel by voxel, read back by hand from the SEG."""
    data = memoryview(with_uids())
    instances = single_series(look_through(data, files_in(data)))
    found = read_series(data, instances, max_voxels=2**28)
    # The label's file has its rows the other way round; ITK brings them onto the series' grid.
    label = sitk.GetArrayFromImage(
        sitk.Resample(
            sitk.ReadImage(str(DATA / "label.nii.gz")), reference(), sitk.Transform(), sitk.sitkNearestNeighbor
        )
    ).astype(np.uint8)
    organs = {"liver": 1, "spleen": 2}
    segments = []
    for name, value in organs.items():
        code = code_of(name)
        assert code is not None
        segments.append(Segment(label=name, label_value=value, code=code))
    authorship = Authorship(algorithm_type="MANUAL", created_at=datetime(2026, 1, 1, tzinfo=UTC))
    made = segmentation_bytes(
        data, instances, Volume(label, found.volume.geometry), segments, authorship, max_voxels=2**28
    )
    masks = masks_of(made, list(found.reference.sop_instance_uids))
    for name, value in organs.items():
        assert (label == value).any()
        assert np.array_equal(label == value, masks[name])
