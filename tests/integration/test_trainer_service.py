"""The training service as a process of its own, with a training process that only pretends."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import psutil
import pytest
from rekindle.api.common.v1 import common_pb2
from rekindle.api.trainer.v1 import trainer_pb2 as pb
from rekindle.api.trainer.v1 import trainer_pb2_grpc
from rekindle_imaging.canonical import encode
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume
from rekindle_servicekit.objects import DirectoryObjects

#: Counts steps as the test lets it, resumes from its own checkpoint, and leaves a result. argv: folder, run, attempt.
FAKE_PROCESS = """
import hashlib, json, signal, sys, time
from pathlib import Path
from rekindle_servicekit.objects import DirectoryObjects
from rekindle_trainer.spec import parse_spec
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
    process: subprocess.Popen[bytes] | None = None
    channel: grpc.Channel | None = None

    @property
    def objects(self) -> DirectoryObjects:
        return DirectoryObjects(self.folder / "objects")

    def start(self) -> trainer_pb2_grpc.TrainerServiceStub:
        port_file = self.folder / "ports.json"
        port_file.unlink(missing_ok=True)
        settings = {
            "ADDRESS": "127.0.0.1:0",
            "PORT_FILE": str(port_file),
            "STATE_DIRECTORY": str(self.folder / "state"),
            "OBJECTS_DIRECTORY": str(self.folder / "objects"),
            "POLL_INTERVAL_S": "0.05",
            "GRACE_S": "0.5",
            "THREADS": "1",
            **self.settings,
        }
        environment = {**os.environ, **{f"REKINDLE_TRAINER_{name}": value for name, value in settings.items()}}
        fake = [sys.executable, "-c", FAKE_PROCESS, str(self.folder / "objects"), "{run_id}", "{attempt}"]
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
                is_ours = str(self.folder / "objects") in process.cmdline()
                if is_ours and process.pid != self.process.pid and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[TrainerProcess]:
    """A service that is not started yet; at the end nothing of it is left."""
    service = TrainerProcess(tmp_path)
    yield service
    (tmp_path / "finish").touch()
    service.end()
    for process in service.training_processes():
        process.kill()


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


def test_a_run_is_watched_from_start_to_result(trainer: TrainerProcess) -> None:
    """Metrics come in order without gaps, then the run with its result, and the stream ends; the spec comes back."""
    stub = trainer.start()
    request = make_request(trainer)
    assert request.spec == stub.StartRun(request, timeout=60).run.spec
    watch = stub.WatchRun(pb.WatchRunRequest(project_id="project", run_id="run-1"), timeout=60)
    train_a_little(stub)
    (trainer.folder / "finish").touch()
    events = list(watch)
    metrics = [event.metric for event in events if event.HasField("metric")]
    assert [number + 1 for number in range(len(metrics))] == [metric.cursor for metric in metrics]
    assert [1 / metric.step for metric in metrics] == [metric.loss for metric in metrics]
    last = events[-1].run
    assert (pb.RUN_STATE_SUCCEEDED, 1) == (last.state, last.attempts)
    assert len(metrics) == last.latest.cursor
    (organ,) = last.result.candidate[0].organs
    assert (0.75, False, -3.0) == (organ.dice, organ.HasField("hd95_mm"), organ.volume_error_ml)
    later = stub.WatchRun(pb.WatchRunRequest(project_id="project", run_id="run-1", after_cursor=2), timeout=10)
    assert metrics[2:] == [event.metric for event in later if event.HasField("metric")]


def test_errors_reach_the_caller_with_their_fields(trainer: TrainerProcess) -> None:
    """INVALID_ARGUMENT for a wrong spec, NOT_FOUND for an unknown run, and the queue stays empty."""
    stub = trainer.start()
    request = make_request(trainer)
    request.spec.preset = "huge"
    with pytest.raises(grpc.RpcError, match=r"spec\.preset") as caught:
        stub.StartRun(request, timeout=60)
    assert grpc.StatusCode.INVALID_ARGUMENT is caught.value.code()
    with pytest.raises(grpc.RpcError) as missing:
        get(stub)
    assert grpc.StatusCode.NOT_FOUND is missing.value.code()
    assert [] == list(stub.ListRuns(pb.ListRunsRequest(project_id="project"), timeout=10).runs)


def test_a_failed_run_says_why(trainer: TrainerProcess) -> None:
    """failure.json of the process is the run's reason."""
    stub = trainer.start()
    stub.StartRun(make_request(trainer, seed=13), timeout=60)
    assert "DIVERGED: no luck" == reach(stub, pb.RUN_STATE_FAILED).reason


def test_cancelling_ends_the_process_and_starts_the_next(trainer: TrainerProcess) -> None:
    """When CancelRun answers, the process is gone; the run that waited gets the slot."""
    stub = trainer.start()
    stub.StartRun(make_request(trainer), timeout=60)
    stub.StartRun(make_request(trainer, "run-2"), timeout=60)
    train_a_little(stub)
    assert "waits for 1 run to end" == get(stub, "run-2").reason
    (process,) = trainer.training_processes()
    cancel = pb.CancelRunRequest(request_id="cancel", project_id="project", run_id="run-1")
    assert pb.RUN_STATE_CANCELLED == stub.CancelRun(cancel, timeout=30).run.state
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    reach(stub, pb.RUN_STATE_RUNNING, "run-2")
    with pytest.raises(grpc.RpcError) as caught:
        stub.CancelRun(pb.CancelRunRequest(request_id="c2", project_id="project", run_id="run-1"), timeout=10)
    assert grpc.StatusCode.FAILED_PRECONDITION is caught.value.code()


def test_a_run_survives_the_death_of_the_service(trainer: TrainerProcess) -> None:
    """SIGKILL of the service leaves the process at work; the next service finds it and publishes its result."""
    stub = trainer.start()
    stub.StartRun(make_request(trainer), timeout=60)
    train_a_little(stub)
    (process,) = trainer.training_processes()
    trainer.end(signal.SIGKILL)
    stub = trainer.start()
    step = get(stub).latest.step
    wait_for(lambda: get(stub).latest.step > step)
    assert [process] == trainer.training_processes()
    (trainer.folder / "finish").touch()
    run = reach(stub, pb.RUN_STATE_SUCCEEDED)
    assert (1, 0) == (run.attempts, len(trainer.training_processes()))


def test_a_killed_process_is_followed_by_one_that_resumes(trainer: TrainerProcess) -> None:
    """SIGKILL of the training process: attempt 2 goes on from the step of the checkpoint."""
    stub = trainer.start()
    stub.StartRun(make_request(trainer), timeout=60)
    train_a_little(stub)
    (process,) = trainer.training_processes()
    process.kill()
    wait_for(lambda: get(stub).attempts == 2)
    (trainer.folder / "finish").touch()
    run = reach(stub, pb.RUN_STATE_SUCCEEDED)
    assert 2 == run.attempts
    steps = [
        event.metric.step
        for event in stub.WatchRun(pb.WatchRunRequest(project_id="project", run_id="run-1"), timeout=10)
        if event.HasField("metric")
    ]
    assert sorted(set(steps)) == steps, "no step was trained twice"


def test_a_stopped_service_takes_its_processes_along_and_goes_on_later(trainer: TrainerProcess) -> None:
    """SIGTERM: the process stops too; the next service starts attempt 2, with all retries left."""
    trainer.settings["MAX_RETRIES"] = "0"
    stub = trainer.start()
    stub.StartRun(make_request(trainer), timeout=60)
    step = train_a_little(stub)
    trainer.end(signal.SIGTERM)
    assert [] == trainer.training_processes()
    stub = trainer.start()
    wait_for(lambda: get(stub).attempts == 2 and get(stub).latest.step > step)
    (trainer.folder / "finish").touch()
    reach(stub, pb.RUN_STATE_SUCCEEDED)


def test_a_stopped_service_may_leave_its_processes(trainer: TrainerProcess) -> None:
    """With stop_children_on_exit=false the process goes on, and the next service takes it over."""
    trainer.settings["STOP_CHILDREN_ON_EXIT"] = "false"
    stub = trainer.start()
    stub.StartRun(make_request(trainer), timeout=60)
    train_a_little(stub)
    (process,) = trainer.training_processes()
    trainer.end(signal.SIGTERM)
    assert [process] == trainer.training_processes()
    (trainer.folder / "finish").touch()
    assert 1 == reach(trainer.start(), pb.RUN_STATE_SUCCEEDED).attempts


def test_help_shows_every_setting() -> None:
    """One line per environment variable."""
    command = [sys.executable, "-m", "rekindle_trainer", "--help"]
    output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    assert "REKINDLE_TRAINER_MAX_CONCURRENT_RUNS" in output
    assert "REKINDLE_TRAINER_STOP_CHILDREN_ON_EXIT" in output


def test_an_unknown_setting_ends_the_service_with_words(tmp_path: Path) -> None:
    """Exit code 1 and the nearest name."""
    environment = {**os.environ, "REKINDLE_TRAINER_TREADS": "2"}
    command = [sys.executable, "-m", "rekindle_trainer"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, cwd=tmp_path)
    assert 1 == ended.returncode
    assert "did you mean REKINDLE_TRAINER_THREADS?" in ended.stderr


def put_boxes(objects: DirectoryObjects, seed: int) -> tuple[str, str]:
    """Digests of a synthetic abdomen, a bright box in a body, and of its mask."""
    geometry = Geometry(
        size=(32, 32, 8),
        spacing_mm=(10.0, 10.0, 12.0),
        origin_mm=(0.0, 0.0, 0.0),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    image, mask = np.full((8, 32, 32), -1000, np.int16), np.zeros((8, 32, 32), np.uint8)
    image[:, 4:28, 4:28] = 0
    mask[2:6, 8 + seed : 20 + seed, 6:18] = 1
    image[mask == 1] = 150
    pair = (encode(Volume(image, geometry), "image"), encode(Volume(mask, geometry), "mask"))
    return put(objects, pair[0]), put(objects, pair[1])


def test_the_real_process_trains_through_a_kill(trainer: TrainerProcess) -> None:
    """A sustainer of preset tiny is killed while it trains, resumes, finds the organ, and is packaged."""
    trainer.real_process = True
    request = make_request(trainer)
    examples = []
    for seed in (0, 1, 2):
        example = common_pb2.Example()
        example.CopyFrom(request.spec.training[0])
        example.image_digest, example.mask_digest = put_boxes(trainer.objects, seed)
        examples.append(example)
    del request.spec.training[:]
    request.spec.training.extend(examples[:2])
    request.spec.heldout.append(examples[2])
    request.spec.recipe = "default"
    for example in request.spec.training:
        example.source = common_pb2.EXAMPLE_SOURCE_SEED
    target = request.spec.training.add()
    target.CopyFrom(examples[1])
    target.image_digest, target.mask_digest = put_boxes(trainer.objects, 3)
    stub = trainer.start()
    stub.StartRun(request, timeout=60)

    def has_checkpoint() -> bool:
        return any("/checkpoint/" in key for key in trainer.objects.list("runs/run-1/"))

    wait_for(has_checkpoint, timeout_s=120)
    for process in trainer.training_processes():
        process.kill()
    run = wait_for(lambda: run if (run := get(stub)).end_time.seconds else None, timeout_s=180)
    assert (pb.RUN_STATE_SUCCEEDED, 2, "") == (run.state, run.attempts, run.reason)
    (package,) = run.result.packages
    assert trainer.objects.exists(f"packages/{package.package_digest}/model.onnx")
    assert trainer.objects.exists(f"weights/{run.result.weights_digest}")
    (case,) = run.result.candidate
    assert case.organs[0].dice > 0.5
