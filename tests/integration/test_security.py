"""The three services as processes behind TLS: every RPC refused to whom it must be, the loop at work inside."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import SimpleITK as sitk
from certificates import Authority, Files
from dicom_phantom import packed, series, stored_values
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from rekindle import api
from rekindle.client import Client
from rekindle.config import Organ, Policy
from rekindle.credentials import Access
from rekindle.errors import InvalidInput, RekindleError, Unauthenticated
from rekindle.tokens import NewToken, create_token
from rekindle_local.stack import SERVICES, Stack, StackOptions
from rekindle_servicekit.permissions import PERMISSIONS, ROLES

TIMEOUT_S = 20.0
#: Stands for what must never leave the data: planted wherever a client can put it.
CANARY = "ZZDOE^CANARY^19700101"

METHODS: dict[str, MethodDescriptor] = {
    f"/{service.full_name}/{method.name}": method
    for module in pkgutil.walk_packages(api.__path__, f"{api.__name__}.")
    if module.name.endswith("_pb2")
    for service in import_module(module.name).DESCRIPTOR.services_by_name.values()
    for method in service.methods
}


@dataclass(kw_only=True)
class Secured:
    """The running stack, and what is needed to call it."""

    stack: Stack
    folder: Path
    authority: Authority
    #: A client certificate that no line of the callers' file names.
    anybody: Files
    tokens: dict[str, NewToken]
    channels: dict[str, grpc.Channel] = field(default_factory=dict)

    def access(self, token: str | None) -> dict[str, Any]:
        return {
            "ca": self.authority.certificate,
            "certificate": self.anybody.certificate,
            "key": self.anybody.key,
            "token": token,
        }

    def client(self, role: str) -> Client:
        addresses = self.stack.addresses
        return Client.connect(
            addresses["scheduler"],
            inference=addresses["inference"],
            trainer=addresses["trainer"],
            timeout_s=TIMEOUT_S,
            **self.access(self.tokens[role].token),
        )

    def channel(self, service: str) -> grpc.Channel:
        """Without a token."""
        if service not in self.channels:
            self.channels[service] = Access(**self.access(None)).channel(self.stack.addresses[service], [])
        return self.channels[service]

    def code(self, service: str, method: str, token: str | None) -> str:
        """How a call with an empty request ends; OK for one that would go on."""
        descriptor = METHODS[method]
        kind = "_".join(
            "stream" if streaming else "unary"
            for streaming in (descriptor.client_streaming, descriptor.server_streaming)
        )
        request = GetMessageClass(descriptor.input_type)()
        bound = getattr(self.channel(service), kind)(
            method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=GetMessageClass(descriptor.output_type).FromString,
        )
        metadata = [] if token is None else [("authorization", f"Bearer {token}")]
        try:
            answer: Any = bound(
                iter([request]) if descriptor.client_streaming else request, timeout=TIMEOUT_S, metadata=metadata
            )
            if descriptor.server_streaming:
                next(iter(answer), None)
                answer.cancel()
        except grpc.RpcError as failure:
            return failure.code().name
        return "OK"

    def served(self, service: str) -> list[str]:
        """The RPCs that the process really serves, as its reflection tells."""
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(self.channel(service))
        request = reflection_pb2.ServerReflectionRequest(list_services="*")
        metadata = [("authorization", f"Bearer {self.tokens['admin'].token}")]
        (reply,) = stub.ServerReflectionInfo(iter([request]), timeout=TIMEOUT_S, metadata=metadata)
        names = {item.name for item in reply.list_services_response.service}
        return [method for method in METHODS if method[1:].partition("/")[0] in names]


@pytest.fixture(scope="module")
def secured(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Secured]:
    """Inference and the trainer ask for client certificates; the scheduler shows its own, people show tokens."""
    folder = tmp_path_factory.mktemp("secured")
    authority = Authority(folder)
    server, scheduler = authority.issue_server(), authority.issue("scheduler", "scheduler.example")
    now = datetime.now(UTC)
    tokens = {role: create_token(role, roles=[role], name=f"The {role}") for role in ROLES}
    tokens["expired"] = create_token("expired", roles=["admin"], expires=now - timedelta(seconds=1))
    tokens["unknown"] = create_token("admin", roles=["admin"])
    certificate = {"certificate": "scheduler.example", "subject": "scheduler", "roles": ["service"]}
    lines = [token.line for name, token in tokens.items() if name != "unknown"]
    callers = folder / "callers.jsonl"
    callers.write_text("\n".join([*lines, json.dumps(certificate)]))
    environment = {
        "REKINDLE_SCHEDULER_PEER_CA": str(authority.certificate),
        "REKINDLE_SCHEDULER_PEER_CERTIFICATE": str(scheduler.certificate),
        "REKINDLE_SCHEDULER_PEER_KEY": str(scheduler.key),
    }
    for service in SERVICES:
        prefix = f"REKINDLE_{service.upper()}_"
        environment |= {
            f"{prefix}TLS_CERTIFICATE": str(server.certificate),
            f"{prefix}TLS_KEY": str(server.key),
            f"{prefix}CALLERS_FILE": str(callers),
            f"{prefix}LOG_LEVEL": "DEBUG",
        }
        if service != "scheduler":
            environment[f"{prefix}TLS_CLIENT_CA"] = str(authority.certificate)
    options = StackOptions(state=folder / "state", port=0, environment=environment)
    anybody = authority.issue("anybody", "anybody.example")
    with Stack(options) as stack:
        secured = Secured(stack=stack, folder=folder, authority=authority, anybody=anybody, tokens=tokens)
        yield secured
        for channel in secured.channels.values():
            channel.close()


def test_every_rpc_is_refused_without_a_good_token(secured: Secured) -> None:
    """No token, a made-up one, one that nobody registered and one that has expired: each RPC of each service."""
    tokens = [None, "rkd_made_up", secured.tokens["unknown"].token, secured.tokens["expired"].token]
    served = {service: secured.served(service) for service in SERVICES}
    assert 40 < len({method for methods in served.values() for method in methods})
    wrong = [
        (method, index, code)
        for service, methods in served.items()
        for method in methods
        for index, token in enumerate(tokens)
        if (code := secured.code(service, method, token)) != "UNAUTHENTICATED"
    ]
    assert [] == wrong


def test_every_rpc_is_refused_to_the_wrong_roles(secured: Secured) -> None:
    """Each RPC with each role: refused exactly where the table says so."""
    wrong = []
    for service in SERVICES:
        for method in secured.served(service):
            for role, permissions in ROLES.items():
                code = secured.code(service, method, secured.tokens[role].token)
                is_allowed = PERMISSIONS[method] in permissions
                if (code == "PERMISSION_DENIED") is is_allowed or code == "UNAUTHENTICATED":
                    wrong.append((method, role, code))
    assert [] == wrong


def test_plain_text_reaches_nobody(secured: Secured) -> None:
    """A client without TLS is not served by any of the three."""
    for service in SERVICES:
        with grpc.insecure_channel(secured.stack.addresses[service]) as channel:
            method = channel.unary_unary("/rekindle.api.scheduler.v1.SchedulerService/ListProjects")
            with pytest.raises(grpc.RpcError) as caught:
                method(b"", timeout=5)
        assert grpc.StatusCode.UNAVAILABLE is caught.value.code()


def _volume(path: Path, voxels: np.ndarray) -> Path:
    """A NIfTI file whose header carries the canary."""
    picture = sitk.GetImageFromArray(voxels)
    picture.SetSpacing((2.0, 2.0, 5.0))
    picture.SetMetaData("descrip", CANARY)
    picture.SetMetaData("aux_file", CANARY[:23])
    sitk.WriteImage(picture, str(path))
    return path


def _volumes(folder: Path, number: int) -> tuple[Path, Path]:
    random = np.random.default_rng(number)
    image = random.integers(-200, 200, (8, 32, 32)).astype(np.int16)
    mask = np.zeros((8, 32, 32), np.uint8)
    mask[2:6, 8:20, 8:20] = 1
    return (
        _volume(folder / f"{CANARY}-{number}.nii.gz", image),
        _volume(folder / f"{CANARY}-{number}-label.nii.gz", mask),
    )


def test_loop_works_behind_tls_and_tells_nothing_of_patients(secured: Secured, tmp_path: Path) -> None:
    """The scheduler reaches inference and the trainer by its certificate; what a client plants is in no log.

    Also in no name of an object, and in no text of an error.
    """
    errors: list[RekindleError] = []
    with secured.client("operator") as client:
        policy = Policy(preset="tiny")
        project = client.create_project("secured", [Organ("liver", 1)], policy=policy)
        for number in range(2):
            image, mask = _volumes(tmp_path, number)
            project.add_seed_case(image, mask, modality="CT")
        image, mask = _volumes(tmp_path, 2)
        case = project.add_case(image, group_key=CANARY)
        slices = series(stored_values(), PatientName=CANARY, PatientID=CANARY, AccessionNumber=CANARY[:16])
        (found,) = project.upload_study(packed(slices))
        assert found.volume_id
        (read,) = project.find_volumes(accession_number=CANARY[:16])
        assert found.volume_id == read.volume_id
        for act in (
            lambda: project.upload_image(f"{CANARY}".encode()),
            lambda: project.upload_image(packed(slices[:2] + slices[3:])),
            lambda: project.upload_study(packed(slices)[:3000]),
            lambda: project.segmentation(CANARY),
            lambda: project.segment(CANARY),
            lambda: project.discard_draft(CANARY),
            lambda: project.lease(CANARY),
            lambda: project.upload_mask(image, image_volume_id=case.volume_id),
            lambda: project.volume(CANARY),
            lambda: project.case(CANARY),
            lambda: client.project(CANARY),
        ):
            with pytest.raises(RekindleError) as caught:
                act()
            errors.append(caught.value)
        project.close_registration().start()
        deadline = time.monotonic() + 60
        while not (runs := list(project.runs())) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert runs, "the scheduler did not reach the trainer"
        runs[0].cancel()
    logs = "".join(path.read_text() for path in (secured.folder / "state").glob("**/*.log"))
    assert "/rekindle.api.scheduler.v1.SchedulerService/RegisterCases" in logs
    _assert_no_canary(logs)
    _assert_no_canary("\n".join(str(path) for path in (secured.folder / "state").rglob("*")))
    _assert_no_canary("\n".join(repr(vars(error)) for error in errors))
    for token in secured.tokens.values():
        assert token.token not in logs
        assert token.token.rpartition("_")[2] not in logs


def _assert_no_canary(text: str) -> None:
    for part in ("ZZDOE", "CANARY"):
        where = text.find(part)
        assert where < 0, f"patient data: ...{text[max(0, where - 200) : where + 60]}"


def test_token_is_withdrawn_without_a_restart(secured: Secured) -> None:
    """A line that is taken out of the callers' file stops its token in the running services."""
    callers = secured.folder / "callers.jsonl"
    before = callers.read_text()
    with secured.client("viewer") as client:
        assert isinstance(list(client.projects()), list)
        try:
            callers.write_text("\n".join(line for line in before.splitlines() if '"viewer"' not in line))
            with pytest.raises(Unauthenticated):
                list(client.projects())
        finally:
            callers.write_text(before)
        assert isinstance(list(client.projects()), list)


def test_services_refuse_to_start_where_anybody_could_call(tmp_path: Path) -> None:
    """Beyond loopback a service ends at once with 2, before it takes a port; its last line of log says what to set."""
    for service in SERVICES:
        prefix = f"REKINDLE_{service.upper()}_"
        ended = subprocess.run(
            [sys.executable, "-m", f"rekindle_{service}"],
            env={f"{prefix}ADDRESS": "0.0.0.0:0", f"{prefix}HEALTH_ADDRESS": ""},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert 2 == ended.returncode
        line = json.loads(ended.stderr.splitlines()[-1])
        assert ("ERROR", service, "start.refused") == (line["level"], line["service"], line["action"])
        assert "callers_file" in line["message"]


def test_token_for_another_machine_needs_tls() -> None:
    """The client refuses to send a token in plain text beyond this machine."""
    with pytest.raises(InvalidInput, match="plain text"):
        Client.connect("rekindle.example:50051", token="t")
