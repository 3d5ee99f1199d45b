"""The scheduler as a process, against inference and trainer services that keep their contracts."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest
from rekindle.api.scheduler.v1 import records_pb2
from scheduler_fakes import FakeInference, FakeTrainer
from scheduler_process import Client, SchedulerProcess


@pytest.fixture
def inference() -> Iterator[FakeInference]:
    service = FakeInference()
    service.start()
    yield service
    service.stop()


@pytest.fixture
def trainer() -> Iterator[FakeTrainer]:
    service = FakeTrainer()
    service.start()
    yield service
    service.stop()


@pytest.fixture
def scheduler(tmp_path: Path, inference: FakeInference, trainer: FakeTrainer) -> Iterator[SchedulerProcess]:
    process = SchedulerProcess(tmp_path, inference, trainer)
    process.start()
    yield process
    process.stop(signal.SIGKILL)


@pytest.fixture
def client(scheduler: SchedulerProcess, inference: FakeInference) -> Client:
    return Client(scheduler, inference)


def test_a_campaign_runs_from_the_igniter_to_complete(client: Client) -> None:
    """Three rounds of two cases label all six, each round trains, promotes and predicts."""
    client.create_project(sizes=[2], cases=6)
    client.call("StartProject")
    assert 6 == client.label_all()
    project = client.wait_for("COMPLETE")
    rounds = client.call("ListRounds").rounds
    assert [0, 1, 2, 3] == [each.number for each in rounds]
    assert {records_pb2.ROUND_STATE_CLOSED} == {each.state for each in rounds}
    assert [0, 2, 2, 2] == [each.labelled_cases for each in rounds]
    assert [True] * 4 == [each.decision.promoted for each in rounds]
    assert rounds[3].serving_model_version_id == project.active_model_version_id
    assert 30.0 == pytest.approx(client.call("GetReport").ledger.minutes_total)
