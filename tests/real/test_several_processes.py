"""Training in several processes, started by the very commands of a Job's pods: nodes, kills and hangs."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from box_runs import add_example, put_spec
from rekindle.api.common.v1 import common_pb2
from rekindle.api.trainer.v1 import trainer_pb2
from rekindle_servicekit.objects import DirectoryObjects
from rekindle_trainer.process.run import run
from rekindle_trainer.process.training.loop import RunStopped
from several import Attempt, pod_commands, training_process
from trainer_process import TrainerProcess, get, make_request, wait_for


def put_long_run(folder: Path) -> DirectoryObjects:
    """A sustainer of 80 steps by SGD, with a checkpoint every ten."""
    objects = DirectoryObjects(folder)
    targets = [add_example(objects, number, source="target") for number in range(10, 18)]
    put_spec(objects, "run-1", kind="sustainer", recipe="paper", training=targets)
    return objects


def test_two_nodes_go_on_from_what_one_process_began(tmp_path: Path) -> None:
    """Pods of two processes each meet at the first one's address, resume, finish once, and both end with 0."""
    objects = put_long_run(tmp_path)
    calls = iter(range(1000))
    with pytest.raises(RunStopped):
        run(objects, "run-1", 1, lambda: next(calls) > 30)
    with Attempt(tmp_path, 2, gpus=2, nodes=2) as attempt:
        assert [0, 0] == attempt.wait(240), attempt.said()
    result = attempt.read("result")
    assert objects.exists(f"weights/{result['weights_digest']}")
    records = [json.loads(objects.get(key)) for key in objects.list("runs/run-1/2/metrics/")]
    assert 1 == sum(record["phase"] == "prepare" for record in records)
    steps = [record["step"] for record in records if record["phase"] == "corrected"]
    assert steps == sorted(set(steps))
    assert steps[0] > 20
    assert result["evaluation"]["candidate"]


def test_a_process_that_is_told_to_stop_stops_all(tmp_path: Path) -> None:
    """SIGTERM to one of them: all leave together, with 143, after a checkpoint."""
    objects = put_long_run(tmp_path)
    with Attempt(tmp_path, 1) as attempt:
        attempt.wait_for_checkpoint()
        attempt.ranks()[1].send_signal(signal.SIGTERM)
        assert [143] == attempt.wait(), attempt.said()
    assert not objects.exists("runs/run-1/1/failure.json")
    assert not objects.exists("runs/run-1/1/result.json")


def test_a_killed_process_takes_the_others_along(tmp_path: Path) -> None:
    """The pod ends as the killed one did, and the other one says whom it has lost."""
    put_long_run(tmp_path)
    with Attempt(tmp_path, 1) as attempt:
        attempt.wait_for_checkpoint()
        attempt.ranks()[1].kill()
        assert [137] == attempt.wait(), attempt.said()
    assert "RANK_LOST" == attempt.read("failure")["reason"]
    assert "one of the 2 processes of the run ended" in attempt.read("failure")["message"]


def test_a_process_that_hangs_ends_the_attempt_in_time(tmp_path: Path) -> None:
    """The others wait as long as the setting says, and name it."""
    put_long_run(tmp_path)
    settings = {"REKINDLE_PROCESS_COLLECTIVE_TIMEOUT_S": "20", "REKINDLE_PROCESS_OBJECTS_PATIENCE_S": "5"}
    with Attempt(tmp_path, 1, settings=settings) as attempt:
        attempt.wait_for_checkpoint()
        hanging = attempt.ranks()[1]
        hanging.suspend()
        attempt.wait_until(lambda: (tmp_path / "runs/run-1/1/failure.json").exists())
        hanging.resume()
        assert [76] == attempt.wait(), attempt.said()
    failure = attempt.read("failure")
    assert "COLLECTIVE_TIMEOUT" == failure["reason"]
    assert "within 20 s" in failure["message"]


@pytest.fixture
def trainer(tmp_path: Path) -> Iterator[TrainerProcess]:
    """The training service, whose training process is what a Job's pod runs with two GPUs."""
    (command,) = pod_commands(training_process(tmp_path / "objects"), "{run_id}", "{attempt}", gpus=2)
    service = TrainerProcess(tmp_path, command=command)
    yield service
    service.end()


def test_a_run_whose_process_was_killed_is_tried_again(trainer: TrainerProcess) -> None:
    """The second attempt goes on from the first one's checkpoint and succeeds; one retry is spent."""
    request = make_request(trainer)
    put_boxes(trainer, request)
    stub = trainer.start()
    stub.StartRun(request, timeout=60)
    checkpoints = trainer.folder / "objects/runs/run-1/1"
    wait_for(lambda: any(checkpoints.glob("checkpoint/*/state.json")), 120)
    (victim,) = [p for p in trainer.training_processes() if p.environ().get("RANK") == "1"]
    victim.kill()
    wait_for(lambda: 2 == get(stub).attempts, 60)
    ended = wait_for(lambda: now if (now := get(stub)).state == trainer_pb2.RUN_STATE_SUCCEEDED else None, 120)
    assert 2 == ended.attempts
    assert (trainer.folder / "objects/runs/run-1/2/result.json").exists()
    failure = json.loads((checkpoints / "failure.json").read_text())
    assert "RANK_LOST" == failure["reason"]


def put_boxes(trainer: TrainerProcess, request: trainer_pb2.StartRunRequest) -> None:
    """Eight volumes to train on, instead of the one that only pretends."""
    del request.spec.training[:]
    for number in range(10, 18):
        raw = add_example(trainer.objects, number, source="target")
        request.spec.training.add(
            case_id=raw["case_id"],
            source=common_pb2.EXAMPLE_SOURCE_TARGET,
            modality=common_pb2.MODALITY_CT,
            image_digest=raw["image_digest"],
            mask_digest=raw["mask_digest"],
        )
    # The boxes have two organs.
    request.spec.organs.add(id="spleen", label_value=2)
