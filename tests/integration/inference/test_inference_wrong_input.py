"""Whatever is sent, the answer is a typed error, the service lives on, and nothing is left behind."""

import gzip
import hashlib
import struct
import uuid

import grpc
import numpy as np
import pytest
import SimpleITK as sitk
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.status import error_from_rpc

BAD = grpc.StatusCode.INVALID_ARGUMENT


def objects_of(running):
    return sorted(path for path in running.objects_directory.rglob("*") if path.is_file())


def refused(running, call):
    """The (code, reason, message) of a call that must fail and change nothing; the service must live on."""
    before = running.rows(), objects_of(running)
    with pytest.raises(grpc.RpcError) as caught:
        call()
    error = error_from_rpc(caught.value)
    assert before == (running.rows(), objects_of(running))
    assert [] == running.service.incoming.files()
    alive = volumes.BatchGetVolumesRequest(project_id="project-a")
    assert [] == list(running.volumes.BatchGetVolumes(alive, timeout=10).volumes)
    return caught.value.code(), error.reason, error.message


def not_a_volume(phantom, folder):
    path = folder / "letter.nii.gz"
    path.write_bytes(b"Dear radiologist, " * 100)
    return path


def truncated_gzip(phantom, folder):
    path = phantom.file(folder)
    path.write_bytes(path.read_bytes()[:-200])
    return path


def gzip_of_a_letter(phantom, folder):
    path = folder / "letter.nii.gz"
    path.write_bytes(gzip.compress(b"Dear radiologist, " * 100))
    return path


def with_header(position, format, *values):
    def make(phantom, folder):
        data = bytearray(gzip.decompress(phantom.file(folder).read_bytes()))
        struct.pack_into(format, data, position, *values)
        path = folder / "patched.nii.gz"
        path.write_bytes(gzip.compress(bytes(data)))
        return path

    return make


def two_dimensional(phantom, folder):
    path = folder / "slice.nii.gz"
    sitk.WriteImage(sitk.GetImageFromArray(phantom.image[0]), str(path))
    return path


def four_dimensional(phantom, folder):
    frames = [sitk.GetImageFromArray(phantom.image), sitk.GetImageFromArray(phantom.image)]
    path = folder / "series.nii.gz"
    sitk.WriteImage(sitk.JoinSeries(frames), str(path))
    return path


def with_nan_voxels(phantom, folder):
    voxels = phantom.image.astype(np.float32)
    voxels[3, 4, 5] = np.nan
    return phantom.file(folder, voxels=voxels)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (not_a_volume, "NOT_A_VOLUME"),
        (gzip_of_a_letter, "NOT_A_VOLUME"),
        (truncated_gzip, "TRUNCATED"),
        (two_dimensional, "NOT_3D"),
        (four_dimensional, "NOT_3D"),
        (with_header(80, "<f", float("nan")), "BAD_GEOMETRY"),
        (with_header(80, "<f", 0.0), "BAD_GEOMETRY"),
        (with_header(40, "<4h", 3, 2600, 2600, 2600), "TOO_LARGE"),
        (with_header(42, "<h", -32), "NOT_A_VOLUME"),
        (with_nan_voxels, "NON_FINITE"),
    ],
)
def test_refuses_files_that_are_no_volumes(running, phantom, tmp_path, make, reason):
    """Each kind of wrong file has its own reason."""
    path = make(phantom, tmp_path)
    code, actual, message = refused(running, lambda: running.upload(path))
    assert (BAD, reason) == (code, actual)
    assert str(tmp_path) not in message


def test_refuses_a_file_with_another_digest(running, phantom, tmp_path):
    """Bytes that are not those that were announced are DATA_LOSS."""
    path = phantom.file(tmp_path)
    code, reason, _ = refused(running, lambda: running.upload(path, sha256="0" * 64))
    assert (grpc.StatusCode.DATA_LOSS, "DIGEST_MISMATCH") == (code, reason)


def test_refuses_a_file_over_the_limit(running, tmp_path):
    """The stream is given up as soon as it exceeds the limit, here 2 MB."""
    path = tmp_path / "large"
    path.write_bytes(bytes(2_100_000))
    code, reason, _ = refused(running, lambda: running.upload(path, chunk_bytes=500_000))
    assert (BAD, "TOO_LARGE") == (code, reason)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spacing": (4.0, 4.0, 6.0)}, "spacing (4, 4, 6) instead of (4, 4, 5)"),
        ({"origin": (-60.0, -40.0, 100.0)}, "origin (-60, -40, 100) instead of (-60, -50, 100)"),
        ({"voxels": np.zeros((12, 32, 31), np.uint8)}, "size (31, 32, 12) instead of (32, 32, 12)"),
    ],
)
def test_refuses_a_mask_of_another_geometry(running, phantom, tmp_path, changes, words):
    """The message says what differs."""
    image = running.upload(phantom.file(tmp_path)).volume
    path = phantom.file(tmp_path, "mask", **changes)
    code, reason, message = refused(running, lambda: running.upload_mask(path, image.volume_id))
    assert (BAD, "GEOMETRY_MISMATCH") == (code, reason)
    assert words in message


def test_refuses_unknown_label_values(running, phantom, tmp_path):
    """The message lists the values that no organ has."""
    image = running.upload(phantom.file(tmp_path)).volume
    voxels = phantom.mask.copy()
    voxels[0, 0, :2] = (9, 77)
    path = phantom.file(tmp_path, voxels=voxels)
    code, reason, message = refused(running, lambda: running.upload_mask(path, image.volume_id))
    assert (BAD, "UNKNOWN_LABEL_VALUES") == (code, reason)
    assert "9, 77" in message


def test_refuses_a_mask_with_fractions(running, phantom, tmp_path):
    """A probability map is no mask."""
    image = running.upload(phantom.file(tmp_path)).volume
    path = phantom.file(tmp_path, voxels=phantom.mask.astype(np.float32) / 2)
    assert (BAD, "NOT_A_MASK") == refused(running, lambda: running.upload_mask(path, image.volume_id))[:2]


def test_refuses_a_coarse_label_of_another_image(running, phantom, tmp_path):
    """Effort against another patient's mask would mean nothing."""
    one, two = (running.upload(phantom.file(tmp_path)).volume for _ in range(2))
    coarse = running.upload_mask(phantom.file(tmp_path, "mask"), one.volume_id).volume
    path = phantom.file(tmp_path, "mask")
    code, reason, _ = refused(
        running,
        lambda: running.upload_mask(path, two.volume_id, coarse_mask_volume_id=coarse.volume_id),
    )
    assert (BAD, "OTHER_IMAGE") == (code, reason)


def test_volumes_of_another_project_do_not_exist(running, phantom, tmp_path):
    """Reading, drawing on, and correcting them are all NOT_FOUND."""
    image = running.upload(phantom.file(tmp_path)).volume
    mask = running.upload_mask(phantom.file(tmp_path, "mask"), image.volume_id)
    other, path = "project-b", phantom.file(tmp_path, "mask")
    service = running.volumes
    calls = [
        lambda: service.GetVolume(volumes.GetVolumeRequest(project_id=other, volume_id=image.volume_id), timeout=10),
        lambda: list(
            service.DownloadVolume(
                volumes.DownloadVolumeRequest(project_id=other, volume_id=image.volume_id), timeout=10
            )
        ),
        lambda: service.GetReceipt(
            volumes.GetReceiptRequest(project_id=other, receipt_id=mask.receipt.receipt_id), timeout=10
        ),
        lambda: running.upload_mask(path, image.volume_id, project_id=other),
    ]
    codes = [refused(running, call)[0] for call in calls]
    assert [grpc.StatusCode.NOT_FOUND] * 4 == codes


def stream(*parts):
    return iter([volumes.UploadVolumeRequest(**part) for part in parts])


def good_header(**changes):
    fields = {
        "request_id": uuid.uuid4().hex,
        "project_id": "project-a",
        "kind": common.VOLUME_KIND_IMAGE,
        "format": common.FILE_FORMAT_NIFTI,
        "sha256": hashlib.sha256(b"x").hexdigest(),
        "modality": common.MODALITY_CT,
        **changes,
    }
    return volumes.UploadVolumeHeader(**fields)


@pytest.mark.parametrize(
    ("parts", "reason"),
    [
        ([], "HEADER_MISSING"),
        ([{}], "HEADER_MISSING"),
        ([{"chunk": b"x"}], "HEADER_MISSING"),
        ([{"header": good_header()}], "EMPTY_FILE"),
        ([{"header": good_header()}, {"header": good_header()}], "SECOND_HEADER"),
        ([{"header": good_header(project_id="")}], "INVALID_INPUT"),
        ([{"header": good_header(project_id="../other")}], "INVALID_INPUT"),
        ([{"header": good_header(kind=0)}], "INVALID_INPUT"),
        ([{"header": good_header(format=99)}], "INVALID_INPUT"),
        ([{"header": good_header(modality=0)}], "INVALID_INPUT"),
        ([{"header": good_header(sha256="../../etc/passwd")}], "INVALID_INPUT"),
        ([{"header": good_header(kind=common.VOLUME_KIND_MASK, modality=0)}], "INVALID_INPUT"),
        ([{"header": good_header(request_id="")}, {"chunk": b"x"}], "INVALID_INPUT"),
    ],
)
def test_refuses_streams_out_of_order(running, parts, reason):
    """Header first, once, complete; then chunks."""
    call = lambda: running.volumes.UploadVolume(stream(*parts), timeout=30)  # noqa: E731
    assert (BAD, reason) == refused(running, call)[:2]


def test_prediction_without_a_model_is_not_ready(running):
    """Where nothing is active yet the caller is told so, before any volume is looked at."""
    request = inference.PredictVolumesRequest(
        project_id="project-a", model=inference.ModelSelector(active=True), volume_ids=["any"]
    )
    code, reason, _ = refused(running, lambda: list(running.inference.PredictVolumes(request, timeout=10)))
    assert (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_NOT_READY") == (code, reason)


def test_segment_refuses_what_is_no_volume(running, package):
    """A streamed file is read by the same parser, with the same reasons."""
    running.activate(running.register(running.upload_package(*package)))
    header = inference.SegmentHeader(
        project_id="project-a",
        model=inference.ModelSelector(active=True),
        format=common.FILE_FORMAT_NIFTI,
        sha256=hashlib.sha256(b"no volume").hexdigest(),
    )
    parts = [inference.SegmentRequest(header=header), inference.SegmentRequest(chunk=b"no volume")]
    call = lambda: list(running.inference.Segment(iter(parts), timeout=30))  # noqa: E731
    assert (BAD, "NOT_A_VOLUME") == refused(running, call)[:2]
