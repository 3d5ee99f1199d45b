"""Windows of training over the trainer's own wire, with a training process that only pretends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import grpc
import pytest
from rekindle.api.common.v1 import common_pb2
from rekindle.api.trainer.v1 import trainer_pb2 as pb
from trainer_process import TrainerProcess, get, make_request, reach, train_a_little, wait_for


@pytest.fixture
def trainer_settings() -> dict[str, str]:
    """No retry is spared."""
    return {"MAX_RETRIES": "0", "PROCESS_GPUS": "2"}


def closed() -> common_pb2.TrainingWindow:
    """A window that opens in two hours."""
    opens, ends = (datetime.now(UTC) + timedelta(hours=hours) for hours in (2, 3))
    return common_pb2.TrainingWindow(start=f"{opens:%H:%M}", end=f"{ends:%H:%M}", time_zone="UTC")


def limits(version: int, window: common_pb2.TrainingWindow | None = None) -> pb.SetTrainingLimitsRequest:
    given = pb.TrainingLimits(version=version, window=window)
    return pb.SetTrainingLimitsRequest(request_id=f"limits {version}", project_id="project", limits=given)


def test_a_run_waits_trains_is_preempted_and_goes_on(trainer: TrainerProcess) -> None:
    """It waits for the window that came with it, starts without one, stops for another and resumes at no retry."""
    stub = trainer.start()
    request = make_request(trainer)
    request.limits.CopyFrom(limits(1, closed()).limits)
    stub.StartRun(request, timeout=120)
    run = wait_for(lambda: run if "waits for its window: opens" in (run := get(stub)).reason else None)
    assert (pb.RUN_STATE_QUEUED, 0, 1) == (run.state, run.attempts, run.limits_version)

    assert not stub.SetTrainingLimits(limits(2), timeout=30).limits.HasField("window")
    step = train_a_little(stub)
    stub.SetTrainingLimits(limits(3, closed()), timeout=30)
    run = reach(stub, pb.RUN_STATE_PREEMPTED)
    assert [] == trainer.training_processes()
    told = stub.GetTrainingLimits(pb.GetTrainingLimitsRequest(project_id="project"), timeout=30)
    assert (3, 2) == (told.limits.version, told.gpus_per_process)
    assert told.held_reason.startswith("waits for its window")
    assert told.gpu_seconds == run.gpu_seconds > 0
    # One that comes late opens nothing.
    assert stub.SetTrainingLimits(limits(2), timeout=30).limits.version == 3

    stub.SetTrainingLimits(limits(4), timeout=30)
    wait_for(lambda: get(stub).attempts == 2 and get(stub).latest.step > step)
    (trainer.folder / "finish").touch()
    reach(stub, pb.RUN_STATE_SUCCEEDED)


def test_limits_that_cannot_be_are_refused(trainer: TrainerProcess) -> None:
    """INVALID_ARGUMENT that names the field, and the service lives on."""
    stub = trainer.start()
    window = common_pb2.TrainingWindow(start="20:00", end="06:00", time_zone="Berlin")
    with pytest.raises(grpc.RpcError, match=r"limits\.window\.time_zone") as raised:
        stub.SetTrainingLimits(limits(1, window), timeout=30)
    assert grpc.StatusCode.INVALID_ARGUMENT is raised.value.code()
    told = stub.GetTrainingLimits(pb.GetTrainingLimitsRequest(project_id="project"), timeout=30)
    assert (0, "") == (told.limits.version, told.held_reason)
