"""Runs on more examples than a message of the usual size holds."""

from __future__ import annotations

import json
from dataclasses import replace
from uuid import uuid4

import grpc
import pytest
from rekindle.api.trainer.v1 import trainer_pb2 as pb
from rekindle.errors import InvalidInput
from rekindle.vocabulary import (
    Digest,
    Example,
    ExampleSource,
    Modality,
    Organ,
    OrganState,
    OrganStatus,
    RunKind,
    RunState,
)
from rekindle_scheduler.adapters.channels import open_channel
from rekindle_scheduler.adapters.trainer import GrpcTrainer
from rekindle_scheduler.domain.ids import CaseId, ProjectId, RunId
from rekindle_scheduler.ports import RunLimits, RunRequest
from rekindle_servicekit.server import MAX_MESSAGE_BYTES, MAX_TRAINER_MESSAGE_BYTES
from trainer_process import TrainerProcess, put


@pytest.fixture
def trainer_settings() -> dict[str, str]:
    """Nothing is trained here."""
    return {"POLL_INTERVAL_S": "600"}


def make_run(count: int, image: str, mask: str, case_id: str = "") -> RunRequest:
    states = (OrganState(organ_id="liver", status=OrganStatus.EDITED),)
    example = Example(
        case_id=CaseId(case_id or str(uuid4())),
        source=ExampleSource.TARGET,
        modality=Modality.CT,
        image_digest=Digest(image),
        mask_digest=Digest(mask),
        organ_states=states,
    )
    return RunRequest(
        run_id=RunId("run-1"),
        project_id=ProjectId("project"),
        kind=RunKind.SUSTAINER,
        preset="tiny",
        recipe="paper",
        seed=1,
        modality=Modality.CT,
        organs=(Organ(id="liver", label_value=1),),
        training=(example,) * count,
        limits=RunLimits(version=1, window=None, gpu_seconds_budget=0.0),
    )


def test_a_scheduler_starts_and_follows_a_run_on_very_many_examples(trainer: TrainerProcess) -> None:
    """30,000 examples, beyond 4 MiB, are taken; what is answered is small, and whole where it is asked for whole."""
    stub = trainer.start()
    address = json.loads((trainer.folder / "ports.json").read_text())["address"]
    request = make_run(30_000, put(trainer.objects, b"image"), put(trainer.objects, b"mask"))
    with open_channel(address, max_message_bytes=MAX_TRAINER_MESSAGE_BYTES) as channel:
        scheduler = GrpcTrainer(channel)
        assert RunState.QUEUED is scheduler.start_run(request).state
        assert RunState.QUEUED is scheduler.run(request.project_id, request.run_id).state
    asked = pb.GetRunRequest(project_id="project", run_id="run-1", without_examples=True)
    small = stub.GetRun(asked, timeout=60).run
    assert (0, 1) == (len(small.spec.training), len(small.spec.organs))
    with grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)]) as channel:
        whole = type(stub)(channel).GetRun(pb.GetRunRequest(project_id="project", run_id="run-1"), timeout=60)
    assert MAX_MESSAGE_BYTES < whole.ByteSize()
    assert 30_000 == len(whole.run.spec.training)
    cancel = pb.CancelRunRequest(request_id="c", project_id="project", run_id="run-1", without_examples=True)
    assert pb.RUN_STATE_CANCELLED == stub.CancelRun(cancel, timeout=60).run.state


def test_a_snapshot_that_no_call_can_carry_is_refused_in_words() -> None:
    """gRPC would refuse it again and again: the round stalls with the number that fits."""
    request = make_run(4_000, "0" * 64, "1" * 64, case_id="c" * 10_000)
    with open_channel("127.0.0.1:1") as channel, pytest.raises(InvalidInput, match="4000 examples") as caught:
        GrpcTrainer(channel).start_run(replace(request, seed=2))
    assert "SNAPSHOT_TOO_LARGE" == caught.value.reason
