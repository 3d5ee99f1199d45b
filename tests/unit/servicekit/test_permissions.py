"""One table says what every RPC needs; roles have permissions; what is in no table is refused."""

from __future__ import annotations

import asyncio
import pkgutil
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from rekindle import api
from rekindle.errors import PermissionDenied, RekindleError
from rekindle.status import error_from_rpc
from rekindle_servicekit.identity import Caller
from rekindle_servicekit.permissions import PERMISSIONS, ROLES, Permission, check_permission, main
from rekindle_servicekit.principal import Principal

Stack = Callable[..., Any]
_GENERATED = [
    import_module(module.name)
    for module in pkgutil.walk_packages(api.__path__, f"{api.__name__}.")
    if module.name.endswith("_pb2")
]


def _caller(*roles: str) -> Principal:
    return Principal(issuer="test", subject="ann", display_name="Ann", roles=frozenset(roles))


def test_table_has_every_rpc_and_no_other() -> None:
    """The table names exactly the RPCs of the API, of health and of reflection."""
    files = [*_GENERATED, health_pb2, reflection_pb2]
    services = [service for file in files for service in file.DESCRIPTOR.services_by_name.values()]
    rpcs = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    assert len(rpcs) > 40
    assert set() == rpcs ^ PERMISSIONS.keys()


def test_health_alone_is_open() -> None:
    """Nothing but health may be called without credentials."""
    opened = {method for method, permission in PERMISSIONS.items() if permission is Permission.OPEN}
    assert {"/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"} == opened


def test_admin_may_do_everything() -> None:
    """The role that the local user has is refused nothing that is in the table."""
    for method in PERMISSIONS:
        check_permission(_caller("admin"), method)


@pytest.mark.parametrize(
    ("role", "allowed", "refused"),
    [
        ("operator", "scheduler.v1.SchedulerService/CreateProject", "scheduler.v1.SchedulerService/Submit"),
        ("reviewer", "scheduler.v1.SchedulerService/Submit", "scheduler.v1.SchedulerService/TrainNow"),
        ("annotator", "inference.v1.VolumeService/DownloadVolume", "inference.v1.InferenceService/ActivateModel"),
        ("integrator", "inference.v1.InferenceService/Segment", "scheduler.v1.SchedulerService/ListProjects"),
        ("service", "trainer.v1.TrainerService/StartRun", "scheduler.v1.SchedulerService/CreateProject"),
        ("viewer", "scheduler.v1.SchedulerService/GetReport", "inference.v1.VolumeService/DownloadVolume"),
    ],
)
def test_roles(role: str, allowed: str, refused: str) -> None:
    """Each role may do its own work and not another one's."""
    check_permission(_caller(role), f"/rekindle.api.{allowed}")
    with pytest.raises(PermissionDenied) as caught:
        check_permission(_caller(role), f"/rekindle.api.{refused}")
    assert "MISSING_PERMISSION" == caught.value.reason


def test_only_administrators_administer_and_only_services_serve() -> None:
    """Erasing is for administrators; what one service asks of another is for services and administrators."""
    holders = {p: {role for role, granted in ROLES.items() if p in granted} for p in Permission}
    assert {"admin"} == holders[Permission.ADMINISTER]
    assert {"admin", "service"} == holders[Permission.SERVE]


def test_roles_add_up_and_unknown_ones_add_nothing() -> None:
    """A caller of two roles may do what either may; a role that does not exist gives nothing."""
    train, submit = (f"/rekindle.api.scheduler.v1.SchedulerService/{name}" for name in ("TrainNow", "Submit"))
    both = _caller("operator", "annotator")
    check_permission(both, train)
    check_permission(both, submit)
    with pytest.raises(PermissionDenied, match="yours: root"):
        check_permission(_caller("root"), submit)


def test_refusal_says_what_is_missing_and_who_has_it() -> None:
    """The message names the permission, the roles that have it and the caller's own."""
    with pytest.raises(PermissionDenied) as caught:
        check_permission(_caller("annotator"), "/rekindle.api.trainer.v1.TrainerService/StartRun")
    words = caught.value.message
    assert all(word in words for word in ("StartRun", "operate", "admin, operator, service", "yours: annotator"))
    assert {"permission": "operate"} == caught.value.metadata


def test_method_that_is_in_no_table_is_refused_to_everybody() -> None:
    """Not even an administrator may call an RPC that nobody put into the table."""
    with pytest.raises(PermissionDenied) as caught:
        check_permission(_caller("admin"), "/rekindle.api.scheduler.v1.SchedulerService/NewMethod")
    assert "UNLISTED_METHOD" == caught.value.reason


def test_documentation_has_the_roles_as_they_are() -> None:
    """The table in docs/security.md names every role with exactly its permissions, and every permission."""
    text = (Path(__file__).parents[3] / "docs" / "security.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]* \| ((?:`[\w.]+` ?)+)\|$", text, re.M))
    # Open to everybody, so it is no role's.
    expected = {
        role: " ".join(sorted(f"`{permission}`" for permission in permissions - {Permission.OPEN}))
        for role, permissions in ROLES.items()
        if role != "admin"
    }
    assert expected == {role: permissions.strip() for role, permissions in rows.items() if role != "admin"}
    for permission in Permission:
        assert re.search(rf"^\|[^|]*`{re.escape(permission)}`", text, re.M), permission


def test_table_can_be_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """Whoever configures callers can print what each RPC needs."""
    main()
    printed = capsys.readouterr().out
    assert len(PERMISSIONS) == len(printed.splitlines())
    assert re.search(r"SchedulerService/TrainNow +project.write +admin, operator", printed)


class _OneRole:
    """Everybody is of this role."""

    def __init__(self, role: str) -> None:
        self._role = role

    async def authenticate(self, caller: Caller) -> Principal:
        return _caller(self._role)


@pytest.mark.parametrize(("role", "is_allowed"), [("annotator", True), ("viewer", False)])
def test_servers_enforce_the_table(stack: Stack, kind: str, role: str, is_allowed: bool) -> None:
    """In every kind of call the servicer is reached by the roles that may, and by no other."""
    calls = 0

    async def work(request: bytes, _: Any) -> bytes:
        nonlocal calls
        calls += 1
        return request

    async def scenario() -> RekindleError | None:
        async with stack(work, authenticator=_OneRole(role)) as running:
            try:
                await running.call(kind, b"x")
            except grpc.RpcError as failure:
                return error_from_rpc(failure)
        return None

    outcome = asyncio.run(scenario())
    assert is_allowed is (outcome is None)
    assert is_allowed is (calls > 0)
    assert is_allowed or isinstance(outcome, PermissionDenied)
