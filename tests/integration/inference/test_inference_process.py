"""The service as a process: started, killed, started again."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import grpc
import pytest
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import segmentations_pb2 as segmentations
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from rekindle.api.inference.v1.segmentations_pb2_grpc import SegmentationServiceStub
from rekindle.api.inference.v1.volumes_pb2_grpc import VolumeServiceStub

SUPPORT = Path(__file__).parents[2] / "support"


@pytest.fixture
def launch(tmp_path):
    """Starts processes over one state, and leaves none behind."""
    started = []

    def launch(module="rekindle_inference", **settings):
        port_file = tmp_path / "port.json"
        port_file.unlink(missing_ok=True)
        environment = {
            **os.environ,
            "REKINDLE_INFERENCE_ADDRESS": "127.0.0.1:0",
            "REKINDLE_INFERENCE_HEALTH_ADDRESS": "127.0.0.1:0",
            "REKINDLE_INFERENCE_DATABASE_URL": f"sqlite:///{tmp_path}/state.sqlite3",
            "REKINDLE_INFERENCE_OBJECTS_DIRECTORY": str(tmp_path / "objects"),
            "REKINDLE_INFERENCE_TEMPORARY_DIRECTORY": str(tmp_path / "incoming"),
            "REKINDLE_INFERENCE_PORT_FILE": str(port_file),
            **{f"REKINDLE_INFERENCE_{name.upper()}": str(value) for name, value in settings.items()},
            "PYTHONPATH": str(SUPPORT),
        }
        process = subprocess.Popen([sys.executable, "-m", module], env=environment)
        started.append(process)
        deadline = time.monotonic() + 60
        while not port_file.exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return process, json.loads(port_file.read_text())["address"]

    yield launch
    for process in started:
        process.kill()
        process.wait()


def test_what_was_acknowledged_survives_a_kill(launch, running, phantom, tmp_path):
    """A volume that was uploaded is there after SIGKILL and a new start; SIGTERM then ends it in order."""
    process, address = launch()
    with grpc.insecure_channel(address) as channel:
        running.volumes = VolumeServiceStub(channel)
        volume = running.upload(phantom.file(tmp_path)).volume
    process.kill()
    process.wait()
    process, address = launch()
    with grpc.insecure_channel(address) as channel:
        request = volumes.GetVolumeRequest(project_id="project-a", volume_id=volume.volume_id)
        assert volume == VolumeServiceStub(channel).GetVolume(request, timeout=10).volume
    process.send_signal(signal.SIGTERM)
    assert 0 == process.wait(20)
    assert [] == list((tmp_path / "incoming").glob("*/call-*"))


def create_upload(stub, data, request_id="r1"):
    header = volumes.UploadVolumeHeader(
        project_id="project-a",
        kind=common.VOLUME_KIND_IMAGE,
        format=common.FILE_FORMAT_NIFTI,
        sha256=hashlib.sha256(data).hexdigest(),
        modality=common.MODALITY_CT,
    )
    request = volumes.CreateUploadRequest(request_id=request_id, header=header, size_bytes=len(data))
    return stub.CreateUpload(request, timeout=10).upload


def put(stub, upload, offset, data):
    chunk = {"project_id": "project-a", "upload_id": upload.upload_id, "offset": offset, "data": data}
    return stub.PutChunk(volumes.PutChunkRequest(**chunk), timeout=10).received_bytes


def test_an_upload_goes_on_after_a_kill(launch, phantom, tmp_path):
    """A chunk that was acknowledged is there after SIGKILL; what nobody goes on with is removed by the service."""
    data = phantom.file(tmp_path).read_bytes()
    process, address = launch()
    with grpc.insecure_channel(address) as channel:
        stub = VolumeServiceStub(channel)
        upload = create_upload(stub, data)
        assert 200 == put(stub, upload, 0, data[:200])
        process.kill()
        process.wait()
    process, address = launch(upload_lifetime_s=1, upload_sweep_s=0.1)
    with grpc.insecure_channel(address) as channel:
        stub = VolumeServiceStub(channel)
        assert 200 == create_upload(stub, data).received_bytes
        assert len(data) == put(stub, upload, 200, data[200:])
        names = {"project_id": "project-a", "upload_id": upload.upload_id}
        request = volumes.FinalizeUploadRequest(request_id="r2", **names)
        assert hashlib.sha256(data).hexdigest() == stub.FinalizeUpload(request, timeout=30).volume.original_digest
        left = create_upload(stub, b"left alone", "r3")
        put(stub, left, 0, b"left")
        deadline = time.monotonic() + 20
        while list((tmp_path / "objects").glob("uploads/*/*")):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def connect(running, channel):
    """Let `running` talk to another process."""
    running.volumes = VolumeServiceStub(channel)
    running.inference = InferenceServiceStub(channel)
    running.segmentations = SegmentationServiceStub(channel)
    return running


def test_a_segmentation_survives_a_kill_in_its_middle(launch, running, package, phantom, tmp_path):
    """Killed between two slice batches and started again: it succeeds, once, with one result."""
    process, address = launch("hooked_engine", segmentation_claim_s=4)
    with grpc.insecure_channel(address) as channel:
        active = connect(running, channel)
        active.activate(active.register(active.upload_package(*package)))
        asked = active.create(active.upload(phantom.file(tmp_path)).volume.volume_id)
        for answer in active.watch(asked):
            if 0 < answer.segmentation.slices_done < 12:
                break
        assert segmentations.SEGMENTATION_STATE_RUNNING == answer.segmentation.state
        process.kill()
        process.wait()
    process, address = launch()
    with grpc.insecure_channel(address) as channel:
        active = connect(running, channel)
        done = list(active.watch(asked, after=answer.cursor))[-1].segmentation
        (result,) = active.feed(1)
        request = segmentations.ListResultsRequest(project_id="project-a", volume_id=asked.volume_id)
        listed = active.segmentations.ListResults(request, timeout=10).results
    assert segmentations.SEGMENTATION_STATE_SUCCEEDED == done.state
    assert answer.segmentation.model_version_id == done.model_version_id
    assert [done.result_id] == [result.result_id] == [each.result_id for each in listed]
