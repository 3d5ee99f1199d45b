"""The training service as a process of its own, with a training process that only pretends, for tests."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import psutil
from rekindle.api.common.v1 import common_pb2
from rekindle.api.trainer.v1 import trainer_pb2 as pb
from rekindle.api.trainer.v1 import trainer_pb2_grpc
from rekindle_servicekit.objects import DirectoryObjects

#: Counts steps as the test lets it, resumes from its own checkpoint, and leaves a result. argv: folder, run, attempt.
FAKE_PROCESS = """
import hashlib, json, signal, sys, time
from pathlib import Path
from rekindle_servicekit.objects import DirectoryObjects
from rekindle_trainer.domain.spec import parse_spec
folder, run, attempt = sys.argv[1:]
objects = DirectoryObjects(Path(folder))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
spec = parse_spec(objects.get(f"runs/{run}/spec.json"))
if spec.seed == 13:
    objects.put(f"runs/{run}/{attempt}/failure.json", b'{"reason": "DIVERGED", "message": "no luck"}')
    sys.exit(1)
steps = [int(key.split("/")[-1]) for key in objects.list(f"runs/{run}/") if "/checkpoint/" in key]
step, number = max(steps, default=0), 0
while not (Path(folder).parent / "finish").exists() or step < 2:
    step, number = step + 1, number + 1
    objects.put(f"runs/{run}/{attempt}/checkpoint/{step}", b"")
    metric = {"phase": "corrected", "step": step, "epoch": 1, "epochs": 2, "loss": 1 / step, "lr": 0.1}
    objects.put(f"runs/{run}/{attempt}/metrics/{number:06d}.json", json.dumps(metric).encode())
    time.sleep(0.05)
weights, package = (hashlib.sha256(word).hexdigest() for word in (b"weights", b"package"))
for key in (f"weights/{weights}", f"packages/{package}/manifest.json", f"packages/{package}/model.onnx"):
    objects.put(key, b"{}")
result = {
    "weights_digest": weights,
    "packages": [{"modality": spec.modality, "package_digest": package}],
    "snapshot_digest": spec.snapshot_digest(),
    "evaluation": {"candidate": [{"image_digest": "i", "case_id": "c", "organs": {"liver": {
        "dice": 0.75, "hd95_mm": None, "volume_error_ml": -3.0, "predicted_ml": 900.0}}}], "current": []},
    "training_check": [], "train_seconds": 1.5, "epochs": 2, "final_loss": 1 / step,
}
objects.put(f"runs/{run}/{attempt}/result.json", json.dumps(result).encode())
"""
SERVE = "import sys; from rekindle_trainer.__main__ import main; sys.exit(main([], command=sys.argv[1:] or None))"


def wait_for(condition: Callable[[], Any], timeout_s: float = 30.0) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.05)
    return value


@dataclass
class TrainerProcess:
    """The service in a folder: started, killed and started again at will."""

    folder: Path
    real_process: bool = False
    settings: dict[str, str] = field(default_factory=dict)
    #: Instead of the training process and of the one that pretends.
    command: list[str] | None = None
    #: Where objects lie, instead of in its folder; two services may share it.
    objects_folder: Path | None = None
    process: subprocess.Popen[bytes] | None = None
    channel: grpc.Channel | None = None

    @property
    def objects(self) -> DirectoryObjects:
        return DirectoryObjects(self._objects_folder)

    @property
    def _objects_folder(self) -> Path:
        return self.objects_folder or self.folder / "objects"

    def start(self) -> trainer_pb2_grpc.TrainerServiceStub:
        port_file = self.folder / "ports.json"
        port_file.unlink(missing_ok=True)
        settings = {
            "ADDRESS": "127.0.0.1:0",
            "PORT_FILE": str(port_file),
            "STATE_DIRECTORY": str(self.folder / "state"),
            "OBJECTS_DIRECTORY": str(self._objects_folder),
            "POLL_INTERVAL_S": "0.05",
            "GRACE_S": "0.5",
            "THREADS": "1",
            **self.settings,
        }
        environment = {**os.environ, **{f"REKINDLE_TRAINER_{name}": value for name, value in settings.items()}}
        fake = self.command or [
            sys.executable,
            "-c",
            FAKE_PROCESS,
            str(self._objects_folder),
            "{run_id}",
            "{attempt}",
        ]
        with (self.folder / "service.log").open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-c", SERVE, *([] if self.real_process else fake)], env=environment, stderr=log
            )
        wait_for(lambda: port_file.exists() or self.process.poll() is not None)
        assert self.process.poll() is None, (self.folder / "service.log").read_text()[-2000:]
        self.channel = grpc.insecure_channel(json.loads(port_file.read_text())["address"])
        return trainer_pb2_grpc.TrainerServiceStub(self.channel)

    def end(self, number: int = signal.SIGTERM) -> None:
        if self.channel is not None:
            self.channel.close()
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)
            self.process.wait(30)

    def training_processes(self) -> list[psutil.Process]:
        found = []
        for process in psutil.process_iter():
            try:
                is_ours = str(self._objects_folder) in process.cmdline()
                if is_ours and process.pid != self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found


def put(objects: DirectoryObjects, data: bytes) -> str:
    digest = hashlib.sha256(data).hexdigest()
    objects.put(f"canonical/{digest}", data)
    return digest


def make_request(trainer: TrainerProcess, run_id: str = "run-1", seed: int = 1) -> pb.StartRunRequest:
    example = common_pb2.Example(
        case_id="c",
        source=common_pb2.EXAMPLE_SOURCE_TARGET,
        modality=common_pb2.MODALITY_CT,
        image_digest=put(trainer.objects, b"image"),
        mask_digest=put(trainer.objects, b"mask"),
        organ_states=[common_pb2.OrganState(organ_id="liver", status=common_pb2.ORGAN_STATUS_EDITED)],
    )
    spec = pb.RunSpec(
        kind=pb.RUN_KIND_SUSTAINER,
        preset="tiny",
        recipe="paper",
        seed=seed,
        modality=common_pb2.MODALITY_CT,
        organs=[common_pb2.Organ(id="liver", label_value=1)],
        training=[example],
    )
    return pb.StartRunRequest(request_id=f"start {run_id}", project_id="project", run_id=run_id, spec=spec)


def get(stub: trainer_pb2_grpc.TrainerServiceStub, run_id: str = "run-1") -> pb.Run:
    return stub.GetRun(pb.GetRunRequest(project_id="project", run_id=run_id), timeout=10).run


def reach(stub: trainer_pb2_grpc.TrainerServiceStub, state: int, run_id: str = "run-1") -> pb.Run:
    return wait_for(lambda: run if (run := get(stub, run_id)).state == state else None)


def train_a_little(stub: trainer_pb2_grpc.TrainerServiceStub) -> int:
    return wait_for(lambda: get(stub).latest.step >= 3 and get(stub).latest.step)
