"""Every RPC of the API has a method in the client that calls it."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import ServiceDescriptor
from rekindle import api
from rekindle._call import Caller
from rekindle._services import Services
from rekindle.api.common.v1 import common_pb2, info_pb2
from rekindle.api.inference.v1 import inference_pb2, segmentations_pb2, volumes_pb2
from rekindle.api.scheduler.v1 import annotation_pb2, purges_pb2, records_pb2, scheduler_pb2
from rekindle.api.trainer.v1 import trainer_pb2
from rekindle.client import Client
from rekindle.config import Organ, Policy
from rekindle.leases import Lease
from rekindle.models import Model
from rekindle.projects import Project
from rekindle.purges import Purge
from rekindle.runs import Run
from rekindle.segmentations import DurableSegmentation
from rekindle.server_info import NEEDED_VERSION
from rekindle.sessions import Session
from rekindle.uploads import Upload
from rekindle_servicekit.permissions import PERMISSIONS, Permission

#: Every generated module, so that a new proto file is looked at too.
MODULES = [
    import_module(module.name)
    for module in pkgutil.walk_packages(api.__path__, f"{api.__name__}.")
    if module.name.endswith("_pb2")
]


def services() -> dict[str, ServiceDescriptor]:
    """Every service of the generated API, by the name of the stub that the client keeps."""
    found = {name: service for module in MODULES for name, service in module.DESCRIPTOR.services_by_name.items()}
    plural = {"VolumeService": "volumes", "SegmentationService": "segmentations"}
    return {plural.get(name, name.removesuffix("Service").lower()): service for name, service in found.items()}


class Channel:
    """Stands in for a channel: notes the method, checks the request's type, answers empty messages."""

    def __init__(self, called: set[str]) -> None:
        self._called = called
        self._methods = {
            f"/{service.full_name}/{method.name}": method
            for service in services().values()
            for method in service.methods
        }

    def method(self, path: str, **_: Any) -> Callable[..., Any]:
        """What a stub binds, of any of the four kinds."""
        method = self._methods[path]

        def call(request: Any, timeout: float | None = None) -> Any:
            self._called.add(method.full_name)
            assert timeout is not None, f"{method.name} is called without a deadline"
            for message in request if method.client_streaming else [request]:
                assert method.input_type is message.DESCRIPTOR
            answer = _filled(method.output_type._concrete_class())
            return Stream(answer) if method.server_streaming else answer

        return call

    unary_unary = unary_stream = stream_unary = stream_stream = method


class Stream:
    """One answer, then the end."""

    def __init__(self, answer: Any) -> None:
        self._answers = [answer]

    def __iter__(self) -> Iterator[Any]:
        return iter(self._answers)

    def cancel(self) -> None:
        """Ends nothing: there is no call behind it."""


def _filled(answer: Any) -> Any:
    """Gives projects a modality, and headers the digest of the empty file that follows."""
    if isinstance(answer, volumes_pb2.DownloadVolumeResponse):
        answer.header.sha256 = EMPTY_SHA256
    if isinstance(answer, volumes_pb2.ReadVolumeResponse):
        answer.header.SetInParent()
    if isinstance(answer, inference_pb2.SegmentResponse):
        answer.result.sha256 = EMPTY_SHA256
    if isinstance(answer, info_pb2.GetServerInfoResponse):
        answer.info.version = NEEDED_VERSION
    if isinstance(answer, scheduler_pb2.GetPurgeResponse):
        answer.purge.state = purges_pb2.PURGE_STATE_DONE
    if "project" in answer.DESCRIPTOR.fields_by_name:
        answer.project.CopyFrom(PROJECT)
    return answer


PROJECT = records_pb2.Project(project_id="p", target_modality=common_pb2.MODALITY_CT)
EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

#: What a parameter takes, by its name; the rest by its annotation.
ARGUMENTS: dict[str, Any] = {
    "organs": [Organ("liver", 1)],
    "policy": Policy(),
    "igniter": None,
    "spec": trainer_pb2.RunSpec(),
    "volumes_and_groups": [("volume", "group")],
    "volume_ids": ["volume"],
    "mark": "easy",
    "modality": "CT",
    "image": b"image",
    "mask": b"mask",
    "manifest": b"{}",
    "onnx": b"onnx",
    "source": b"file",
    "study": b"archive",
    "service": "scheduler",
    "verdict": "accept",
    "limits": {"liver": 0.5},
    "version": 1,
    "volume": "volume",
}
#: What does not call a service, or is driven by another method of the handle.
NOT_DRIVEN = {
    *("connect", "close", "from_proto", "lease_next", "send"),
    *("results", "wait", "result"),
    # Deprecated names.
    *("resume_lease", "restore", "take_up", "token"),
    *("forget_prefetched", "prefetch", "restore_time", "resume", "save", "ticket"),
}


def drive(handle: Any) -> None:
    """Calls every public method of a handle with plausible arguments and drains what it answers."""
    for name, method in inspect.getmembers(type(handle), inspect.isfunction):
        if name.startswith("_") or name in NOT_DRIVEN:
            continue
        given = {
            parameter.name: _argument(parameter)
            for parameter in list(inspect.signature(method, eval_str=False).parameters.values())[1:]
            if parameter.default is inspect.Parameter.empty
        }
        answer = getattr(handle, name)(**given)
        if inspect.isgenerator(answer) or isinstance(answer, Iterator):
            list(answer)


def _argument(parameter: inspect.Parameter) -> Any:
    if parameter.name in ARGUMENTS:
        return ARGUMENTS[parameter.name]
    known = {"str": "text", "int": 1, "float": 1.0, "bytes": b"bytes"}
    assert parameter.annotation in known, f"say in ARGUMENTS what {parameter} takes"
    return known[parameter.annotation]


@pytest.fixture
def called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The full names of all RPCs that the handles' methods called."""
    noted: set[str] = set()
    channel: Any = Channel(noted)
    addresses = dict.fromkeys(("scheduler", "inference", "trainer"), "127.0.0.1:1")
    stubs = Services(addresses, Caller(timeout_s=1.0), lambda _: channel)
    monkeypatch.setitem(ARGUMENTS, "path", tmp_path / "archive.tar")
    Project(stubs, PROJECT).export(tmp_path / "archive.tar")
    drive(Client(stubs))
    drive(Project(stubs, PROJECT))
    lease = records_pb2.Lease(lease_id="l")
    lease.case.coarse_label.mask_volume_id = "mask"
    drive(Lease(stubs, lease, (Organ("liver", 1),)))
    Project(stubs, PROJECT).resume("lease")
    drive(Upload(stubs, "p", volumes_pb2.Upload(upload_id="u")))
    drive(Session(stubs, annotation_pb2.Session(session_id="s"), (Organ("liver", 1),)))
    drive(Model.from_proto(inference_pb2.Model(), stubs))
    drive(Run(stubs, trainer_pb2.Run()))
    drive(Purge(stubs, purges_pb2.Purge()))
    done = segmentations_pb2.Segmentation(state=segmentations_pb2.SEGMENTATION_STATE_SUCCEEDED)
    drive(DurableSegmentation(stubs, done))
    DurableSegmentation(stubs, done).result()
    # Endless by itself.
    next(Project(stubs, PROJECT).results())
    return noted


def test_every_rpc_has_a_client_method(called: set[str]) -> None:
    """No method of any service is left without a way to call it from Python, but what services ask of each other."""
    served = {method[1:].replace("/", ".") for method, needed in PERMISSIONS.items() if needed is Permission.SERVE}
    rpcs = {method.full_name for service in services().values() for method in service.methods} - served
    assert set() == rpcs - called


def test_services_are_those_of_the_protos() -> None:
    """These services are looked at; a further one would be too."""
    assert {"scheduler", "volumes", "inference", "segmentations", "trainer", "info", "admin"} == set(services())
