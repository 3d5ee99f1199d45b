"""The inference service answers requests that no sound client sends with words, and keeps projects apart."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import grpc
import pytest
from any_request import call_all, only_plausible, only_reading, wrong_ends
from phantom import Phantom
from rekindle.api.common.v1 import admin_pb2, admin_pb2_grpc, common_pb2
from rekindle.api.inference.v1 import inference_pb2, segmentations_pb2, volumes_pb2
from servers.fixtures import MakeDatabase


def stubs(running: Any) -> list[tuple[Any, Any]]:
    """Every service that the process offers."""
    channel = grpc.insecure_channel(running.service.server.address)
    return [
        (admin_pb2.DESCRIPTOR.services_by_name["AdminService"], admin_pb2_grpc.AdminServiceStub(channel)),
        (volumes_pb2.DESCRIPTOR.services_by_name["VolumeService"], running.volumes),
        (inference_pb2.DESCRIPTOR.services_by_name["InferenceService"], running.inference),
        (segmentations_pb2.DESCRIPTOR.services_by_name["SegmentationService"], running.segmentations),
    ]


@pytest.fixture
def known(
    start: Any, phantom: Phantom, package: tuple[bytes, bytes], tmp_path: Path, make_database: MakeDatabase
) -> Any:
    """The service with one of everything in a project, and the ids of it."""
    running = start(changes={"database_url": make_database(lambda _url: None)})
    image = running.upload(phantom.file(tmp_path)).volume
    mask = running.upload_mask(phantom.file(tmp_path, "mask"), image.volume_id)
    model = running.register(running.upload_package(*package))
    running.activate(model)
    segmentation = running.ended(running.create(image.volume_id))
    header = volumes_pb2.UploadVolumeHeader(
        project_id="project-a",
        kind=common_pb2.VOLUME_KIND_IMAGE,
        format=common_pb2.FILE_FORMAT_NIFTI,
        modality=common_pb2.MODALITY_CT,
        sha256=image.original_digest,
    )
    created = volumes_pb2.CreateUploadRequest(request_id="upload", header=header, size_bytes=1000)
    upload = running.volumes.CreateUpload(created, timeout=20).upload
    return running, {
        "project_id": "project-a",
        "volume_id": image.volume_id,
        "volume_ids": image.volume_id,
        "image_volume_id": image.volume_id,
        "mask_volume_id": mask.volume.volume_id,
        "coarse_mask_volume_id": mask.volume.volume_id,
        "receipt_id": mask.receipt.receipt_id,
        "sha256": image.original_digest,
        "package_digest": model.package_digest,
        "model_version_id": model.model_version_id,
        "segmentation_id": segmentation.segmentation_id,
        "result_id": segmentation.result_id,
        "upload_id": upload.upload_id,
        "id": "liver",
        "organ_id": "liver",
        "modality": common_pb2.MODALITY_CT,
    }


def test_no_request_makes_it_fail(known: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Each RPC with each field wrong in turn: refused or carried out, never an incident, and it goes on serving."""
    running, ids = known
    with caplog.at_level(logging.ERROR):
        outcomes = call_all(stubs(running), ids)
    assert [] == wrong_ends(outcomes)
    assert [] == caplog.messages


@pytest.mark.parametrize("make_database", ["sqlite"], indirect=True)
def test_projects_are_kept_apart(known: Any) -> None:
    """Whoever names one project with ids of another learns nothing of that one and changes nothing in it."""
    running, ids = known
    before = call_all(stubs(running), ids, only_reading)
    outcomes = call_all(stubs(running), {**ids, "project_id": "project-b"}, only_plausible)
    assert all(ids.values())
    private = [value.encode() for name, value in ids.items() if name.endswith("_id") and name != "organ_id"]
    assert [] == [each for each in outcomes if any(value in each.answer for value in private)]
    assert before == call_all(stubs(running), ids, only_reading)
