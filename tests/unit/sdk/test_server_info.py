"""The client asks servers what they are, and says so once when one is too old."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from fake_world import Command
from rekindle.api.common.v1 import info_pb2, info_pb2_grpc
from rekindle.client import Client
from rekindle.errors import NotFound, Unsupported


class Servers(info_pb2_grpc.InfoServiceServicer):
    """One server that answers for all three services."""

    def __init__(self) -> None:
        self.version = "1.4.0"

    def GetServerInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        info = info_pb2.ServerInfo(
            service="scheduler", version=self.version, api_version="v1", capabilities=["postgresql"]
        )
        info.limits["max_file_bytes"] = 5
        return info_pb2.GetServerInfoResponse(info=info)


@pytest.fixture
def servers() -> Servers:
    return Servers()


@pytest.fixture
def informed(servers: Servers) -> Iterator[str]:
    """The address of a server that answers InfoService."""
    server = grpc.server(ThreadPoolExecutor(2))
    info_pb2_grpc.add_InfoServiceServicer_to_server(servers, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(None)


def test_every_server_is_asked(informed: str) -> None:
    """Version, capabilities and limits come by service, with the address that was asked."""
    with Client.connect(informed, inference=informed, trainer=informed) as client:
        infos = client.server_info()

    assert list(infos) == ["scheduler", "inference", "trainer"]
    assert infos["trainer"].address == informed
    assert infos["scheduler"].version == "1.4.0"
    assert infos["scheduler"].capabilities == {"postgresql"}
    assert infos["scheduler"].limits == {"max_file_bytes": 5}


def test_a_server_that_is_too_old_is_warned_of_once(informed: str, servers: Servers) -> None:
    """The warning names service, address and versions; asking again is silent."""
    servers.version = "0.0.9"
    with Client.connect(informed, inference=informed, trainer=informed) as client:
        with pytest.warns(UserWarning, match=rf"scheduler service at {informed} has version 0\.0\.9"):
            client.server_info_of("scheduler")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert client.server_info_of("scheduler").is_too_old


def test_a_server_that_cannot_tell_is_too_old(client: Client) -> None:
    """Servers from before this call count as version 0.0.0 instead of failing."""
    with pytest.warns(UserWarning, match="version 0.0.0"):
        assert client.server_info_of("inference").version == "0.0.0"


def test_a_call_that_the_server_does_not_know_is_unsupported(client: Client) -> None:
    """Programs can tell it from a fault, and the message says that the server is older."""
    stub = client._services.info["scheduler"]
    with pytest.raises(Unsupported, match="older than this client"):
        stub.GetServerInfo(info_pb2.GetServerInfoRequest())


def test_an_unknown_service_is_named(client: Client) -> None:
    """The message lists those that there are."""
    with pytest.raises(NotFound, match="scheduler, inference, trainer"):
        client.server_info_of("archive")


def test_info_prints_servers_and_says_who_is_away(
    informed: str, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Exit code 5 where one cannot be reached; the others are shown all the same."""
    monkeypatch.setenv("REKINDLE_ADDRESS", informed)
    monkeypatch.setenv("REKINDLE_INFERENCE", informed)
    monkeypatch.setenv("REKINDLE_TRAINER", "127.0.0.1:1")

    result = command("info", "--json")

    answer = json.loads(result.stdout)
    assert [item["version"] for item in answer["servers"]] == ["1.4.0", "1.4.0"]
    assert list(answer["failed"]) == ["trainer"]
    assert result.exit_code == 5
    assert "cannot be reached" in command("info").stdout
