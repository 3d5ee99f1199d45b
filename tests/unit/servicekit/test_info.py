"""A server tells what it is, what it can do and how much it takes."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from rekindle.api.common.v1 import info_pb2, info_pb2_grpc
from rekindle_servicekit.identity import LoopbackAuthenticator
from rekindle_servicekit.info import ServerFacts, database_capabilities, serve_info, software_version
from rekindle_servicekit.server import Server, ServerOptions


def ask(facts: ServerFacts) -> info_pb2.ServerInfo:
    """What a running server with these facts answers."""

    async def scenario() -> info_pb2.ServerInfo:
        server = Server(ServerOptions(), LoopbackAuthenticator())
        serve_info(server, facts)
        await server.start()
        try:
            async with grpc.aio.insecure_channel(server.address) as channel:
                stub = info_pb2_grpc.InfoServiceStub(channel)
                return (await stub.GetServerInfo(info_pb2.GetServerInfoRequest(), timeout=5)).info
        finally:
            await server.stop(0)

    return asyncio.run(scenario())


def test_a_server_tells_its_facts() -> None:
    """Name, version of the distribution, capabilities in order, own limits beside the message limit, and its clock."""
    info = ask(
        ServerFacts(
            service="inference",
            capabilities=frozenset({"triton", "dicom"}),
            limits={"max_file_bytes": 2**40},
            installation_id="site-a",
        )
    )

    assert (info.service, info.version, info.api_version) == ("inference", software_version("inference"), "v1")
    assert list(info.capabilities) == ["dicom", "triton"]
    assert dict(info.limits) == {"max_message_bytes": 4 * 1024 * 1024, "max_file_bytes": 2**40}
    assert info.installation_id == "site-a"
    assert abs(info.server_time.ToDatetime(UTC) - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("url", "word"), [("sqlite:///a", "sqlite"), ("postgresql://h/d", "postgresql"), ("postgres://h/d", "postgresql")]
)
def test_the_kind_of_database_is_a_capability(url: str, word: str) -> None:
    """Whoever operates a server sees which database it is on, and nothing else of the URL."""
    assert database_capabilities(url) == {word}


def test_a_distribution_that_is_not_installed_has_an_unknown_version() -> None:
    """A source tree runs all the same."""
    assert software_version("nothing") == "0.0.0+unknown"
