"""The server: health on two ports, reflection, ports, exposure, an orderly end."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from rekindle.errors import DependencyUnavailable, InvalidInput, Unauthenticated
from rekindle_servicekit.identity import LoopbackAuthenticator
from rekindle_servicekit.server import Server, ServerOptions, check_exposure, serve

Stack = Callable[..., Any]
_SERVICE = "rekindle.tests.Echo"


async def _echo(request: bytes, _: Any) -> bytes:
    return request


async def _health(address: str, service: str) -> str:
    async with grpc.aio.insecure_channel(address) as channel:
        reply = await health_pb2_grpc.HealthStub(channel).Check(
            health_pb2.HealthCheckRequest(service=service), timeout=5
        )
    return health_pb2.HealthCheckResponse.ServingStatus.Name(reply.status)


class _NobodyAuthenticator:
    """Lets nobody in."""

    async def authenticate(self, caller: Any) -> Any:
        raise Unauthenticated("nobody may")


def test_health_on_both_ports_without_credentials(stack: Stack) -> None:
    """Probes get the same answers on the main and the health-only port, and need no credentials."""

    async def scenario() -> list[str]:
        async with stack(_echo, authenticator=_NobodyAuthenticator()) as running:
            addresses = (running.server.address, running.server.health_address)
            before = [await _health(address, name) for address in addresses for name in ("", _SERVICE)]
            await running.server.set_serving(_SERVICE, False)
            return before + [await _health(address, name) for address in addresses for name in ("", _SERVICE)]

    assert ["SERVING"] * 4 + ["SERVING", "NOT_SERVING"] * 2 == asyncio.run(scenario())


def test_health_of_an_unknown_service(stack: Stack) -> None:
    """Asking for a service that is not here is NOT_FOUND, through the interceptors as well."""

    async def scenario() -> set[grpc.StatusCode]:
        codes: set[grpc.StatusCode] = set()
        async with stack(_echo) as running:
            for address in (running.server.address, running.server.health_address):
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await _health(address, "no.such.Service")
                codes.add(caught.value.code())
        return codes

    assert {grpc.StatusCode.NOT_FOUND} == asyncio.run(scenario())


def test_health_port_serves_nothing_else(stack: Stack) -> None:
    """The health-only port does not know the service."""

    async def scenario() -> grpc.StatusCode:
        async with (
            stack(_echo) as running,
            grpc.aio.insecure_channel(running.server.health_address) as channel,
        ):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await channel.unary_unary(f"/{_SERVICE}/unary_unary")(b"x")
            return caught.value.code()

    assert grpc.StatusCode.UNIMPLEMENTED is asyncio.run(scenario())


async def _listed_services(address: str) -> set[str]:
    async with grpc.aio.insecure_channel(address) as channel:
        request = reflection_pb2.ServerReflectionRequest(list_services="*")
        call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]), timeout=5)
        return {item.name async for reply in call for item in reply.list_services_response.service}


def test_reflection_lists_the_services(stack: Stack) -> None:
    """Reflection tells the names of all services."""

    async def scenario() -> set[str]:
        async with stack(_echo) as running:
            return await _listed_services(running.server.address)

    expected = {_SERVICE, "grpc.health.v1.Health", "grpc.reflection.v1alpha.ServerReflection"}
    assert expected == asyncio.run(scenario())


def test_reflection_can_be_switched_off(stack: Stack) -> None:
    """Without reflection the method does not exist."""

    async def scenario() -> grpc.StatusCode:
        async with stack(_echo, ServerOptions(reflection=False)) as running:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _listed_services(running.server.address)
            return caught.value.code()

    assert grpc.StatusCode.UNIMPLEMENTED is asyncio.run(scenario())


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", ":0", "*:0", "example.org:0", "10.1.2.3:0"])
def test_plain_text_beyond_loopback_is_refused(address: str) -> None:
    """Without TLS such an address is InvalidInput that names the setting; with the setting it is allowed."""
    with pytest.raises(InvalidInput, match="insecure=true") as caught:
        check_exposure(ServerOptions(address=address))
    assert "INSECURE_ADDRESS" == caught.value.reason
    check_exposure(ServerOptions(address=address, insecure=True))


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0", "[::1]:0", "unix:/tmp/a.sock"])
def test_loopback_needs_no_setting(address: str) -> None:
    """What no other machine can reach is served as it is."""
    check_exposure(ServerOptions(address=address))


def test_refusal_comes_before_the_port_is_open() -> None:
    """A server with such options is not even built."""

    async def scenario() -> None:
        with pytest.raises(InvalidInput):
            Server(ServerOptions(address="0.0.0.0:0"), LoopbackAuthenticator())

    asyncio.run(scenario())


def test_port_file_tells_the_ports(stack: Stack, tmp_path: Path) -> None:
    """The file holds the ports really taken while the server runs, and is gone afterwards."""
    path = tmp_path / "run" / "scheduler.json"

    async def scenario() -> None:
        async with stack(_echo, ServerOptions(port_file=path)) as running:
            told = json.loads(path.read_text())
            assert {
                "pid": os.getpid(),
                "address": running.server.address,
                "port": int(running.server.address.split(":")[1]),
                "health_address": running.server.health_address,
                "health_port": int(running.server.health_address.split(":")[1]),
            } == told
            assert 0 not in (told["port"], told["health_port"])
            assert "SERVING" == await _health(f"127.0.0.1:{told['health_port']}", "")

    asyncio.run(scenario())
    assert not path.exists()


def test_port_in_use_is_refused(stack: Stack) -> None:
    """A second server on the same port fails rather than sharing it."""

    async def scenario() -> DependencyUnavailable:
        async with stack(_echo) as running:
            second = Server(ServerOptions(address=running.server.address), LoopbackAuthenticator())
            with pytest.raises(DependencyUnavailable, match=running.server.address) as caught:
                await second.start()
            return caught.value

    assert "ADDRESS_IN_USE" == asyncio.run(scenario()).reason


def test_unix_socket(stack: Stack, tmp_path: Path) -> None:
    """A unix socket serves like a port, and its callers are local."""

    async def scenario() -> list[bytes]:
        async with stack(_echo, ServerOptions(address=f"unix:{tmp_path}/a.sock", health_address=None)) as running:
            return await running.call("unary_unary", b"ab")

    assert [b"ab"] == asyncio.run(scenario())


async def _serving(server: Server, background: list[Any], during: Callable[[], Any]) -> None:
    task = asyncio.create_task(serve(server, background))
    while not (server.health_address or ":0").rpartition(":")[2].strip("0"):
        await asyncio.sleep(0.01)
    await during()
    await task


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_calls_and_background_in_order(echo_server: Callable[..., Server], number: signal.Signals) -> None:
    """On a signal health turns NOT_SERVING, running calls are finished, background work ends by itself."""
    seen: list[str] = []

    async def background(stopping: asyncio.Event) -> None:
        await stopping.wait()
        seen.append("background ended")

    async def scenario() -> list[bytes]:
        entered, release = asyncio.Event(), asyncio.Event()

        async def slow(request: bytes, _: Any) -> bytes:
            entered.set()
            await release.wait()
            return request

        server = echo_server(ServerOptions(grace_s=5), slow)
        answers: list[bytes] = []

        async def during() -> None:
            async with grpc.aio.insecure_channel(server.address) as channel:
                call = asyncio.ensure_future(channel.unary_unary(f"/{_SERVICE}/unary_unary")(b"late"))
                await asyncio.wait_for(entered.wait(), 5)
                os.kill(os.getpid(), number)
                await asyncio.wait_for(server.stopping.wait(), 5)
                await asyncio.sleep(0.05)
                seen.append(await _health(str(server.health_address), _SERVICE))
                release.set()
                answers.append(await call)

        await _serving(server, [background], during)
        return answers

    assert [b"late"] == asyncio.run(scenario())
    assert {"NOT_SERVING", "background ended"} == set(seen)


def test_second_signal_ends_at_once(echo_server: Callable[..., Server]) -> None:
    """Whoever sends the signal twice does not wait for the grace."""
    cancelled = threading.Event()

    async def scenario() -> float:
        entered = asyncio.Event()

        async def stuck(request: bytes, _: Any) -> bytes:
            entered.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise
            return request

        server = echo_server(ServerOptions(grace_s=60), stuck)
        loop = asyncio.get_running_loop()
        started = loop.time()

        async def during() -> None:
            async with grpc.aio.insecure_channel(server.address) as channel:
                call = asyncio.ensure_future(channel.unary_unary(f"/{_SERVICE}/unary_unary")(b"x"))
                await asyncio.wait_for(entered.wait(), 5)
                os.kill(os.getpid(), signal.SIGTERM)
                await asyncio.wait_for(server.stopping.wait(), 5)
                os.kill(os.getpid(), signal.SIGTERM)
                with pytest.raises(grpc.aio.AioRpcError):
                    await call

        await _serving(server, [], during)
        return loop.time() - started

    assert asyncio.run(scenario()) < 10
    assert cancelled.is_set()


def test_failing_background_takes_the_server_down() -> None:
    """A service whose background work fails ends, with that error."""

    async def background(stopping: asyncio.Event) -> None:
        await asyncio.sleep(0.05)
        raise LookupError("reconciler broke")

    async def scenario() -> None:
        server = Server(ServerOptions(grace_s=1), LoopbackAuthenticator())
        with pytest.raises(LookupError, match="reconciler broke"):
            await serve(server, [background])
        with pytest.raises(grpc.aio.AioRpcError):
            await _health(str(server.health_address), "")

    asyncio.run(scenario())
