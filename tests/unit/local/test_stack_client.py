"""The stack's own client."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest
from rekindle.api.common.v1 import info_pb2, info_pb2_grpc
from rekindle_local.stack import SERVICES, Stack, StackOptions


class Service(info_pb2_grpc.InfoServiceServicer):
    """Says its version to plain calls, and keeps the names of what came with them."""

    def __init__(self) -> None:
        self.metadata: list[str] = []

    def GetServerInfo(  # noqa: N802 - named as in the proto
        self, request: info_pb2.GetServerInfoRequest, context: grpc.ServicerContext
    ) -> info_pb2.GetServerInfoResponse:
        self.metadata += [item.key for item in context.invocation_metadata()]
        return info_pb2.GetServerInfoResponse(info=info_pb2.ServerInfo(service="scheduler", version="7.8.9"))


@pytest.fixture
def service() -> Service:
    """The service behind all three addresses."""
    return Service()


@pytest.fixture
def address(service: Service) -> Iterator[str]:
    """Where it listens, over plain text."""
    server = grpc.server(ThreadPoolExecutor(1))
    info_pb2_grpc.add_InfoServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def test_environment_of_other_services_is_not_meant(
    service: Service, address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who works with services elsewhere, over TLS and with a token, can still run a stack of their own beside it."""
    monkeypatch.setenv("REKINDLE_CA", str(tmp_path / "absent.pem"))
    monkeypatch.setenv("REKINDLE_TOKEN", "secret")
    monkeypatch.setattr(Stack, "addresses", dict.fromkeys(SERVICES, address))
    with Stack(StackOptions(state=tmp_path)).client() as client:
        assert {"7.8.9"} == {info.version for info in client.server_info().values()}
    assert "authorization" not in service.metadata
