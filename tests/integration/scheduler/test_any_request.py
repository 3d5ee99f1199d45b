"""The scheduler answers requests that no sound client sends with words, and keeps projects apart."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from any_request import call_all, only_plausible, only_reading, wrong_ends
from rekindle.api.common.v1 import admin_pb2, admin_pb2_grpc, info_pb2, info_pb2_grpc
from rekindle.api.scheduler.v1 import scheduler_pb2
from scheduler_fakes import FakeInference, FakeTrainer
from scheduler_process import Client, SchedulerProcess
from servers.fixtures import MakeDatabase

#: Answers about all projects to whoever may see them.
NAME_ALL = {"rekindle.api.scheduler.v1.SchedulerService.ListProjects"}


@pytest.fixture
def scheduler(
    tmp_path: Path, inference: FakeInference, trainer: FakeTrainer, make_database: MakeDatabase
) -> Iterator[SchedulerProcess]:
    process = SchedulerProcess(tmp_path, inference, trainer, database_url=make_database(lambda _url: None))
    process.start()
    yield process
    process.stop(signal.SIGKILL)


def stubs(scheduler: SchedulerProcess) -> list[tuple[Any, Any]]:
    """Every service that the process offers."""
    channel = scheduler.channel
    assert channel is not None
    return [
        (scheduler_pb2.DESCRIPTOR.services_by_name["SchedulerService"], scheduler.stub),
        (admin_pb2.DESCRIPTOR.services_by_name["AdminService"], admin_pb2_grpc.AdminServiceStub(channel)),
        (info_pb2.DESCRIPTOR.services_by_name["InfoService"], info_pb2_grpc.InfoServiceStub(channel)),
    ]


def ids_of_work_under_way(client: Client) -> dict[str, Any]:
    """A project with one of everything, and the ids of it."""
    client.create_project(sizes=[4], cases=6)
    client.call("StartProject")
    labelled, drafted = client.lease(), client.lease()
    session = client.call("StartSession", minutes=1.0, max_cases=1)
    submission = client.call("Submit", **client.submission(labelled)).submission
    draft = client.call("SaveDraft", **client.submission(drafted)).draft
    return {
        "project_id": client.project_id,
        "case_id": drafted.case.case_id,
        "volume_id": drafted.case.volume_id,
        "lease_id": drafted.lease_id,
        "fencing_token": drafted.fencing_token,
        "receipt_id": draft.receipt_id,
        "mask_volume_id": draft.mask_volume_id,
        "draft_id": draft.draft_id,
        "session_id": session.session.session_id,
        "submission_id": submission.submission_id,
        "organ_id": "liver",
    }


def test_no_request_makes_it_fail(scheduler: SchedulerProcess, inference: FakeInference, tmp_path: Path) -> None:
    """Each RPC with each field wrong in turn: refused or carried out, never an incident, and it goes on serving."""
    client = Client(scheduler, inference)
    known = ids_of_work_under_way(client)
    outcomes = call_all(stubs(scheduler), known)
    assert [] == wrong_ends(outcomes)
    assert [] == [line for line in (tmp_path / "scheduler.log").read_text().splitlines() if "incident" in line]
    assert client.project_id == client.project().project_id


@pytest.mark.parametrize("make_database", ["sqlite"], indirect=True)
def test_projects_are_kept_apart(scheduler: SchedulerProcess, inference: FakeInference) -> None:
    """Whoever names one project with ids of another learns nothing of that one and changes nothing in it."""
    client, other = Client(scheduler, inference), Client(scheduler, inference)
    known = ids_of_work_under_way(client)
    other.create_project(sizes=[2], cases=2)
    apart = [(service, stub) for service, stub in stubs(scheduler) if service.name == "SchedulerService"]
    before = call_all(apart, known, only_reading)
    outcomes = call_all(apart, {**known, "project_id": other.project_id}, only_plausible)
    assert all(known.values())
    private = [value.encode() for name, value in known.items() if name.endswith("_id") and name != "organ_id"]
    told = [each for each in outcomes if each.method not in NAME_ALL and any(value in each.answer for value in private)]
    assert [] == told
    assert before == call_all(apart, known, only_reading)
