"""The training service as a process of its own, with a training process that only pretends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import grpc
import numpy as np
import psutil
import pytest
from rekindle.api.common.v1 import common_pb2
from rekindle.api.trainer.v1 import trainer_pb2 as pb
from rekindle_imaging.canonical import encode
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume
from rekindle_servicekit.objects import DirectoryObjects
from trainer_process import TrainerProcess, get, make_request, put, reach, train_a_little, wait_for


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
    """Exit code 2 and the nearest name."""
    environment = {**os.environ, "REKINDLE_TRAINER_TREADS": "2"}
    command = [sys.executable, "-m", "rekindle_trainer"]
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60, cwd=tmp_path)
    assert 2 == ended.returncode
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
