"""Slices over gRPC: voxels at several resolutions, and the slices to look at first."""

import numpy as np
import pytest
from refusals import refused
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.errors import InvalidInput, NotFound


def read(running, volume_id, **wanted):
    """(header, voxels) of a call."""
    request = volumes.ReadVolumeRequest(**{"project_id": "project-a", "volume_id": volume_id, **wanted})
    first, *rest = running.volumes.ReadVolume(request, timeout=30)
    dtype = {volumes.VOXEL_TYPE_INT16: "<i2", volumes.VOXEL_TYPE_UINT8: "u1"}[first.header.voxel_type]
    data = b"".join(part.chunk for part in rest)
    return first.header, np.frombuffer(data, dtype).reshape(
        first.header.slices, first.header.rows, first.header.columns
    )


@pytest.fixture
def image(running, phantom, tmp_path):
    return running.upload(phantom.file(tmp_path)).volume


def test_slices_are_the_voxels_of_the_volume(running, phantom, image):
    """From the first slice asked for to the last, at the place in space where they lie."""
    header, voxels = read(running, image.volume_id, first_slice=4, slice_count=3)
    np.testing.assert_array_equal(phantom.image[4:7], voxels)
    assert (4, 3, 32, 32) == (header.first_slice, header.slices, header.rows, header.columns)
    assert image == header.volume
    assert ([32, 32, 3], [4.0, 4.0, 5.0]) == (list(header.geometry.size), list(header.geometry.spacing_mm))
    # The file's origin in LPS is (-60, -50, 100); slices are 5 mm apart.
    assert [-60.0, -50.0, 120.0] == list(header.geometry.origin_mm)


def test_no_count_reads_to_the_end(running, phantom, image):
    """From slice 9 of 12 on, and all of it."""
    np.testing.assert_array_equal(phantom.image[9:], read(running, image.volume_id, first_slice=9)[1])
    np.testing.assert_array_equal(phantom.image, read(running, image.volume_id)[1])


def test_a_level_is_the_mean_of_blocks(running, phantom, image):
    """Level 2 of 32 x 32 is 8 x 8 means of 4 x 4 voxels with four times their spacing."""
    header, voxels = read(running, image.volume_id, first_slice=2, slice_count=8, level=2)
    expected = phantom.image[2:10].reshape(8, 8, 4, 8, 4).mean(axis=(2, 4))
    np.testing.assert_array_equal(np.rint(expected), voxels)
    assert ([8, 8, 8], [16.0, 16.0, 5.0]) == (list(header.geometry.size), list(header.geometry.spacing_mm))
    # The middle of the first 4 x 4 voxels lies 1.5 voxels from the first one's centre.
    assert [-54.0, -44.0, 110.0] == list(header.geometry.origin_mm)


def test_masks_are_read_by_the_most_frequent_label(running, phantom, image, tmp_path):
    """Label values as they were sent; no window."""
    mask = running.upload_mask(phantom.file(tmp_path, "mask"), image.volume_id).volume
    header, voxels = read(running, mask.volume_id, level=1)
    blocks = phantom.mask.reshape(12, 16, 2, 16, 2).transpose(0, 1, 3, 2, 4).reshape(12, 16, 16, 4)
    expected = np.apply_along_axis(lambda block: np.bincount(block, minlength=7).argmax(), 3, blocks)
    np.testing.assert_array_equal(expected, voxels)
    assert not header.HasField("window_low")
    np.testing.assert_array_equal(phantom.mask, read(running, mask.volume_id)[1])


def test_images_come_with_a_window(running, phantom, image, tmp_path):
    """Soft tissue for CT, percentiles of the whole volume for MR."""
    header, _ = read(running, image.volume_id, slice_count=1)
    assert (-160.0, 240.0) == (header.window_low, header.window_high)
    voxels = np.random.default_rng(3).integers(0, 1000, phantom.image.shape, dtype=np.int16)
    mr = running.upload(phantom.file(tmp_path, voxels=voxels), modality=common.MODALITY_MR).volume
    header, _ = read(running, mr.volume_id, first_slice=3, slice_count=1, level=3)
    assert tuple(np.percentile(voxels, (1, 99))) == pytest.approx((header.window_low, header.window_high))


def test_a_large_volume_comes_in_chunks(running, phantom, tmp_path):
    """No message is larger than a mebibyte, and none is lost."""
    voxels = np.random.default_rng(4).integers(-1000, 1000, (7, 400, 300), dtype=np.int16)
    image = running.upload(phantom.file(tmp_path, voxels=voxels), chunk_bytes=1 << 20).volume
    request = volumes.ReadVolumeRequest(project_id="project-a", volume_id=image.volume_id)
    _, *rest = running.volumes.ReadVolume(request, timeout=30)
    assert max(len(part.chunk) for part in rest) <= 1 << 20
    assert voxels.tobytes() == b"".join(part.chunk for part in rest)


@pytest.mark.parametrize(
    ("wanted", "field", "words"),
    [
        ({"first_slice": -1}, "first_slice", "0 to 11"),
        ({"first_slice": 12}, "first_slice", "12 slices"),
        ({"first_slice": 2**31 - 1}, "first_slice", "0 to 11"),
        ({"slice_count": -1}, "slice_count", "1 to 12"),
        ({"first_slice": 10, "slice_count": 3}, "slice_count", "1 to 2 from slice 10"),
        ({"level": -1}, "level", "0 to 5"),
        ({"level": 6}, "level", "32 rows and 32 columns"),
        ({"level": 31}, "level", "0 to 5"),
    ],
)
def test_ranges_outside_of_the_volume_are_refused(running, image, wanted, field, words):
    """The error names the field and what is possible."""
    error = refused(lambda: read(running, image.volume_id, **wanted))
    assert isinstance(error, InvalidInput)
    assert [field] == [violation.field for violation in error.violations]
    assert words in error.message


def test_slices_of_another_project_do_not_exist(running, image):
    """Nor do those of a volume that never was."""
    assert isinstance(refused(lambda: read(running, image.volume_id, project_id="project-b")), NotFound)
    assert isinstance(refused(lambda: read(running, "no-volume")), NotFound)


@pytest.fixture
def coarse(running, package, image):
    """The mask volume of a prediction."""
    running.activate(running.register(running.upload_package(*package)))
    (answer,) = running.predict(image.volume_id)
    return answer.prediction


def rank(running, mask_volume_id, **fields):
    request = volumes.RankSlicesRequest(**{"project_id": "project-a", "mask_volume_id": mask_volume_id, **fields})
    return running.volumes.RankSlices(request, timeout=10)


def expected_wrong(phantom):
    """By numpy, from the weights of the package: expected wrong voxels of all organs, per slice."""
    low, high = phantom.thresholds()
    seen = np.clip(phantom.image, -200, 250).astype(np.float64)
    seen = (seen - seen.mean()) / seen.std()
    logits = np.stack([np.zeros_like(seen), 10 * (seen - low), 20 * seen - 10 * low - 10 * high])
    p = np.exp(logits - logits.max(axis=0))
    p /= p.sum(axis=0)
    p[1:][p[1:] < 0.01] = 0
    p[0] = 1 - p[1] - p[2]
    index = np.select([phantom.mask == 6, phantom.mask == 1], [1, 2], 0)
    return (1 - np.take_along_axis(p, index[None], axis=0)[0]).sum(axis=(1, 2)), p, index


def test_slices_are_ranked_by_expected_correction(running, phantom, coarse):
    """The voxels that the model's own probabilities let expect to be wrong, most first."""
    ranks = rank(running, coarse.mask_volume_id)
    expected, _, _ = expected_wrong(phantom)
    found = {item.slice: item.expected_voxels_wrong for item in ranks.slices}
    assert set(np.flatnonzero(expected >= 0.5)) == set(found)
    assert found == pytest.approx({int(k): expected[k] for k in found}, abs=0.06)
    assert sorted(found.values(), reverse=True) == [item.expected_voxels_wrong for item in ranks.slices]
    assert coarse.model_version_id == ranks.model_version_id


def test_slices_are_ranked_for_one_organ(running, phantom, coarse):
    """Only the spleen's errors, and no more slices than asked for."""
    ranks = rank(running, coarse.mask_volume_id, organ_id="spleen", limit=2).slices
    _, p, index = expected_wrong(phantom)
    wrong = np.where(index == 2, 1 - p[2], p[2]).sum(axis=(1, 2))
    doubt = 1 - 2 * np.where(index == 2, p[2], 0).sum(axis=(1, 2)) / ((index == 2) + p[2]).sum(axis=(1, 2)).clip(1e-9)
    first = np.lexsort((np.arange(12), -wrong.round(1)))[:2]
    assert first.tolist() == [item.slice for item in ranks]
    assert [wrong[k] for k in first] == pytest.approx([item.expected_voxels_wrong for item in ranks], abs=0.06)
    assert [doubt[k] for k in first] == pytest.approx([item.uncertainty for item in ranks], abs=1e-3)


def test_ranks_belong_to_predictions(running, phantom, image, coarse, tmp_path):
    """A correction, an image, a mask of another project, an unknown organ: each is told apart."""
    correction = running.upload_mask(phantom.file(tmp_path, "mask"), image.volume_id).volume
    for volume in (correction, image):
        assert "NO_PREDICTION" == refused(lambda volume=volume: rank(running, volume.volume_id)).reason
    other = refused(lambda: rank(running, coarse.mask_volume_id, project_id="project-b"))
    assert "VOLUME_NOT_FOUND" == other.reason
    unknown = refused(lambda: rank(running, coarse.mask_volume_id, organ_id="heart"))
    assert ("ORGAN_NOT_FOUND", True) == (unknown.reason, "liver, spleen" in unknown.message)
    for limit in (-1, 1001):
        error = refused(lambda limit=limit: rank(running, coarse.mask_volume_id, limit=limit))
        assert ["limit"] == [violation.field for violation in error.violations]
