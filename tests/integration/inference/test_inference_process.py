"""The service as a process: started, killed, started again."""

import json
import os
import signal
import subprocess
import sys
import time

import grpc
import pytest
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.api.inference.v1.volumes_pb2_grpc import VolumeServiceStub


@pytest.fixture
def launch(tmp_path):
    """Starts processes over one state, and leaves none behind."""
    started = []

    def launch():
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
        }
        process = subprocess.Popen([sys.executable, "-m", "rekindle_inference"], env=environment)
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
