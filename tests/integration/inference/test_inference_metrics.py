"""What Prometheus is told of the service, by what is asked of it over gRPC."""

import hashlib
import os
import uuid

import grpc
import pytest
from dicom_phantom import archive
from rekindle.api.common.v1 import admin_pb2 as admin
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.common.v1.admin_pb2_grpc import AdminServiceStub
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import volumes_pb2 as volumes

STAGES = ("read", "preprocess", "model", "postprocess", "write")


def told(running, name, **labels):
    return running.service.server.metrics.registry.get_sample_value(f"rekindle_{name}", labels)


def stage_counts(running):
    return tuple(told(running, "inference_duration_seconds_count", stage=stage) for stage in STAGES)


def test_a_prediction_is_counted_with_its_stages_and_one_that_fails_without(active, phantom, tmp_path):
    """A prediction that is there already counts as a request and spends no stage again."""
    image = active.upload(phantom.file(tmp_path)).volume
    active.predict(image.volume_id)
    assert (1, 1, 1, 1, 1) == stage_counts(active)
    active.predict(image.volume_id)
    active.predict("no-such-volume")
    active.predict(active.upload(phantom.file(tmp_path), modality=common.MODALITY_MR).volume.volume_id)
    assert (2, 1, 1) == tuple(
        told(active, "inference_requests_total", code=code) for code in ("OK", "NOT_FOUND", "INVALID_ARGUMENT")
    )
    assert (1, 1, 1, 1, 1) == stage_counts(active)


def test_a_streamed_file_and_a_durable_segmentation_are_predictions_too(active, phantom, tmp_path):
    """Each counts once, with all its stages."""
    data = phantom.file(tmp_path).read_bytes()
    header = inference.SegmentHeader(
        project_id="project-a",
        model=inference.ModelSelector(active=True),
        format=common.FILE_FORMAT_NIFTI,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    parts = [inference.SegmentRequest(header=header), inference.SegmentRequest(chunk=data)]
    list(active.inference.Segment(iter(parts), timeout=60))
    assert (1, 1, 1, 1, 1) == stage_counts(active)
    image = active.upload(phantom.file(tmp_path)).volume
    active.ended(active.create(image.volume_id))
    assert (2, 2, 2, 2, 2) == stage_counts(active)
    assert 2 == told(active, "inference_requests_total", code="OK")


def test_refused_files_are_counted_by_reason(running, phantom, tmp_path):
    """Files, series of a study, and a wrong digest; an upload that is taken counts nothing."""
    running.upload(phantom.file(tmp_path))
    assert "rekindle_volumes_rejected_total" not in _names(running)
    (tmp_path / "bad.nii.gz").write_bytes(b"no image" * 100)
    with pytest.raises(grpc.RpcError):
        running.upload(tmp_path / "bad.nii.gz")
    with pytest.raises(grpc.RpcError):
        running.upload(phantom.file(tmp_path), sha256="0" * 64)
    study = archive([b"readme " * 100])
    header = volumes.UploadStudyHeader(
        request_id=uuid.uuid4().hex, project_id="project-a", sha256=hashlib.sha256(study).hexdigest()
    )
    for _ in range(2):  # sent again, it is the same refusal
        parts = [volumes.UploadStudyRequest(header=header), volumes.UploadStudyRequest(chunk=study)]
        running.volumes.UploadStudy(iter(parts), timeout=60)
    reasons = {
        sample.labels["reason"]: sample.value
        for sample in _samples(running)
        if sample.name == "rekindle_volumes_rejected_total"
    }
    assert {"NOT_A_VOLUME": 1, "DIGEST_MISMATCH": 1, "NOT_DICOM": 1} == reasons


def test_packages_are_counted_by_what_became_of_them(running, package):
    """Registered once however often it is asked; one that does not predict the project's organs is refused."""
    digest = running.upload_package(*package)
    running.register(digest)
    running.register(digest)
    wrong = [common.Organ(id="kidney", label_value=1)]
    with pytest.raises(grpc.RpcError):
        running.register(digest, organs=wrong, role=inference.MODEL_ROLE_SUSTAINER)
    counts = tuple(told(running, "model_publish_total", result=r) for r in ("registered", "refused", "failed"))
    assert (1, 1, None) == counts


def test_orphans_are_those_of_the_last_verification(running, phantom, tmp_path):
    """Not there before the first; an old object without a row counts, until it is gone."""
    running.upload(phantom.file(tmp_path))
    with grpc.insecure_channel(running.service.server.address) as channel:
        stub = AdminServiceStub(channel)
        assert told(running, "object_orphans") is None
        list(stub.Verify(admin.VerifyRequest(), timeout=30))
        assert 0 == told(running, "object_orphans")
        stray = running.objects_directory / "volumes" / ("f" * 64)
        stray.write_bytes(b"nobody's")
        os.utime(stray, (1, 1))
        list(stub.Verify(admin.VerifyRequest(), timeout=30))
        assert 1 == told(running, "object_orphans")
        stray.unlink()
        list(stub.Verify(admin.VerifyRequest(), timeout=30))
        assert 0 == told(running, "object_orphans")


def _samples(running):
    return [sample for metric in running.service.server.metrics.registry.collect() for sample in metric.samples]


def _names(running):
    return {sample.name for sample in _samples(running)}
