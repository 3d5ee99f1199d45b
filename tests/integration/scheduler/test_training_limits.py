"""A project's window and budget reach the trainer, also while a run waits there."""

from __future__ import annotations

import grpc
import pytest
from rekindle.api.common.v1 import common_pb2
from rekindle.api.scheduler.v1 import records_pb2
from scheduler_fakes import FakeTrainer
from scheduler_process import Client, eventually

WINDOW = common_pb2.TrainingWindow(
    start="20:00", end="06:00", time_zone="Europe/Berlin", days=[common_pb2.WEEKDAY_MONDAY]
)


def change(client: Client, **training: object) -> records_pb2.Project:
    """The project with these of its training policy changed."""
    project = client.project()
    policy = records_pb2.Policy()
    policy.CopyFrom(project.policy)
    policy.training.MergeFrom(records_pb2.TrainingPolicy(**training))  # type: ignore[arg-type]
    return client.call("UpdatePolicy", policy=policy, policy_version=project.policy_version).project


def test_a_window_reaches_the_trainer_and_its_words_come_back(client: Client, trainer: FakeTrainer) -> None:
    """With the run first, then with a change of the policy while it waits; the round says what it waits for."""
    client.create_project(sizes=[1], cases=1)
    change(client, window=WINDOW, gpu_seconds_budget=3600.0)
    client.call("StartProject")
    eventually(lambda: bool(trainer.limits), "no limits arrive with the run")
    assert trainer.limits is not None
    limits = trainer.limits[client.project_id]
    assert (2, WINDOW, 3600.0) == (limits.version, limits.window, limits.gpu_seconds_budget)
    eventually(lambda: client.call("GetRound", number=0).round.reason == trainer.held, "the round does not say why")
    assert records_pb2.PROJECT_STATE_IGNITING == client.project().state
    told = [event.message for event in client.events() if event.kind == "training-progress"]
    assert [f"round 0: training waits: {trainer.held}"] == told

    project = client.project()
    project.policy.training.window.Clear()
    client.call("UpdatePolicy", policy=project.policy, policy_version=project.policy_version)
    client.wait_for("ACTIVE")
    limits = trainer.limits[client.project_id]
    assert (3, False, 3600.0) == (limits.version, limits.HasField("window"), limits.gpu_seconds_budget)


def test_labels_go_on_while_training_is_held(client: Client, trainer: FakeTrainer) -> None:
    """A round that waits for its window keeps nobody from labelling further cases."""
    client.create_project(sizes=[1], cases=3)
    client.call("StartProject")
    first = client.lease()
    change(client, window=WINDOW)
    client.call("Submit", **client.submission(first))
    eventually(lambda: client.call("GetRound", number=1).round.reason == trainer.held, "the round does not say why")
    rest = [case for case in client.call("ListCases").cases if case.state == records_pb2.CASE_STATE_READY]
    for case in rest:
        client.call("Submit", **client.submission(client.call("LeaseCase", case_id=case.case_id).lease))
    assert (2, 3) == (len(rest), client.project().counts.labelled)
    assert records_pb2.PROJECT_STATE_ACTIVE == client.project().state


def test_a_trainer_without_limits_is_waited_for(client: Client, trainer: FakeTrainer) -> None:
    """One of an older release trains projects without limits; for others the round says what is missing."""
    trainer.limits, trainer.duration = None, 10**9
    client.create_project(sizes=[1], cases=1)
    client.call("StartProject")
    eventually(lambda: trainer.looks.total() > 3, "the run is not followed")
    assert "" == client.call("GetRound", number=0).round.reason
    change(client, window=WINDOW)
    eventually(lambda: "update it" in client.call("GetRound", number=0).round.reason, "nothing is said")
    trainer.duration = 0
    client.wait_for("ACTIVE")


def test_a_window_that_cannot_be_is_refused(client: Client) -> None:
    """INVALID_ARGUMENT that names the field, and the policy stays as it was."""
    client.create_project(sizes=[1], cases=1)
    with pytest.raises(grpc.RpcError, match=r"policy\.training\.window\.time_zone") as raised:
        change(client, window=common_pb2.TrainingWindow(start="20:00", end="06:00", time_zone="Berlin"))
    assert grpc.StatusCode.INVALID_ARGUMENT is raised.value.code()
    assert 1 == client.project().policy_version
