"""A real gRPC server with in-memory services, and clients to it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import grpc
import pytest
from click.testing import CliRunner, Result
from rekindle._call import Retry, UploadWay
from rekindle.api.inference.v1 import inference_pb2_grpc, volumes_pb2_grpc
from rekindle.api.scheduler.v1 import scheduler_pb2_grpc
from rekindle.api.trainer.v1 import trainer_pb2_grpc
from rekindle.client import Client
from rekindle.config import Organ
from rekindle.leases import Lease
from rekindle.projects import Project

sys.path.insert(0, str(Path(__file__).parent))
from fake_inference import FakeInference, FakeVolumes
from fake_scheduler import FakeScheduler
from fake_trainer import FakeTrainer
from fake_world import Command, Connect, World

ORGANS = [Organ("liver", 1, ("SCT", "10200004", "Liver")), Organ("spleen", 2)]


@pytest.fixture
def world() -> World:
    """The fakes' state."""
    return World()


@pytest.fixture
def address(world: World) -> Iterator[str]:
    """Where all four services listen."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    scheduler_pb2_grpc.add_SchedulerServiceServicer_to_server(FakeScheduler(world), server)
    volumes_pb2_grpc.add_VolumeServiceServicer_to_server(FakeVolumes(world), server)
    inference_pb2_grpc.add_InferenceServiceServicer_to_server(FakeInference(world), server)
    trainer_pb2_grpc.add_TrainerServiceServicer_to_server(FakeTrainer(world), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


@pytest.fixture
def connect(address: str) -> Iterator[Connect]:
    """Makes clients that do not wait long between tries and send files in the given way."""
    with ExitStack() as clients:

        def connect(uploads: UploadWay = "auto") -> Client:
            retry = Retry(attempts=3, first_wait_s=0.01)
            options = {"timeout_s": 10, "retry": retry, "uploads": uploads}
            return clients.enter_context(Client.connect(address, inference=address, trainer=address, **options))

        yield connect


@pytest.fixture
def client(connect: Connect) -> Client:
    """A client that sends files as it does by itself."""
    return connect()


@pytest.fixture
def project(client: Client) -> Project:
    """A project with liver and spleen."""
    return client.create_project("Abdomen", ORGANS)


@pytest.fixture
def ready_case(project: Project, world: World) -> str:
    """The id of a case with an image and a coarse label."""
    case = project.add_case(b"image bytes", group_key="P1")
    world.give_coarse_label(case.id, b"coarse bytes")
    return case.id


@pytest.fixture
def lease(project: Project, ready_case: str) -> Lease:
    """A lease of the ready case."""
    return project.lease(ready_case)


@pytest.fixture
def command(address: str, monkeypatch: pytest.MonkeyPatch) -> Command:
    """Runs `rekindle` with arguments against the fakes: a result with exit_code, stdout, stderr."""
    from rekindle.cli.commands import rekindle

    for name in ("ADDRESS", "INFERENCE", "TRAINER"):
        monkeypatch.setenv(f"REKINDLE_{name}", address)
    monkeypatch.delenv("REKINDLE_PROJECT", raising=False)

    def run(*arguments: object) -> Result:
        result = CliRunner().invoke(rekindle, [str(argument) for argument in arguments])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return run
