"""A tiny service of all four call kinds on a real server in this process: bytes in, bytes out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import grpc
import pytest
from rekindle_servicekit.identity import Authenticator, LoopbackAuthenticator
from rekindle_servicekit.permissions import PERMISSIONS, Permission
from rekindle_servicekit.server import Server, ServerOptions

SERVICE = "rekindle.tests.Echo"
KINDS = ("unary_unary", "unary_stream", "stream_unary", "stream_stream")
#: Annotators may call all of the tiny service.
ECHO_PERMISSIONS = {**PERMISSIONS, **{f"/{SERVICE}/{kind}": Permission.ANNOTATE for kind in (*KINDS, "raw")}}

#: What every method of the tiny service awaits for each request, and answers.
Work = Callable[[bytes, Any], Any]


class EchoServicer:
    """Does its `work` on each request."""

    def __init__(self, work: Work) -> None:
        self._work = work
        #: Streams whatever the work itself yields.
        self.raw = work

    async def unary_unary(self, request: bytes, context: Any) -> bytes:
        return await self._work(request, context)

    async def unary_stream(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for _ in range(3):
            yield await self._work(request, context)

    async def stream_unary(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"".join([await self._work(request, context) async for request in requests])

    async def stream_stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for request in requests:
            yield await self._work(request, context)


def add_echo_to_server(servicer: EchoServicer, server: grpc.aio.Server) -> None:
    """What generated code would be called add_EchoServicer_to_server."""
    handlers = {kind: getattr(grpc, f"{kind}_rpc_method_handler")(getattr(servicer, kind)) for kind in KINDS}
    handlers["raw"] = grpc.unary_stream_rpc_method_handler(servicer.raw)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))


class Stack:
    """The running server and a channel to it."""

    def __init__(self, server: Server, channel: grpc.aio.Channel) -> None:
        self.server = server
        self.channel = channel

    async def call(self, kind: str, request: bytes, **options: Any) -> list[bytes]:
        """Call the method of a kind, twice `request` where it takes a stream; all responses.

        By the blocking client, in a thread: the asyncio one may report INTERNAL instead of the server's
        status when a two-way stream is refused while it is still sending.
        """
        with grpc.insecure_channel(self.server.address) as channel:
            method = getattr(channel, kind)(f"/{SERVICE}/{kind}")
            message = iter([request, request]) if kind.startswith("stream") else request
            if kind.endswith("stream"):
                call = method(message, **options)
                responses = asyncio.to_thread(list, call)
            else:
                call = method.future(message, **options)
                responses = asyncio.to_thread(lambda: [call.result()])
            try:
                return await responses
            except asyncio.CancelledError:
                call.cancel()
                raise


@asynccontextmanager
async def running(
    work: Work, options: ServerOptions | None = None, authenticator: Authenticator | None = None
) -> AsyncIterator[Stack]:
    """A started server with the echo service, and a channel."""
    server = Server(options or ServerOptions(), authenticator or LoopbackAuthenticator(), ECHO_PERMISSIONS)
    server.add(SERVICE, EchoServicer(work), add_echo_to_server)
    await server.start()
    try:
        async with grpc.aio.insecure_channel(server.address) as channel:
            yield Stack(server, channel)
    finally:
        await server.stop(0)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    """Each of gRPC's four call kinds."""
    return request.param


@pytest.fixture
def stack() -> Callable[..., Any]:
    """`async with stack(work) as running_stack: ...`."""
    return running


def eventually(condition: Callable[[], bool], timeout_s: float = 5.0) -> Awaitable[None]:
    """Wait until a condition holds; TimeoutError."""

    async def poll() -> None:
        while not condition():
            await asyncio.sleep(0.01)

    return asyncio.wait_for(poll(), timeout_s)


@pytest.fixture(name="eventually")
def _eventually() -> Callable[..., Awaitable[None]]:
    """`await eventually(lambda: ...)`."""
    return eventually


@pytest.fixture
def echo_server() -> Callable[[ServerOptions, Work], Server]:
    """`echo_server(options, work)` for tests that run the server by themselves."""

    def build(options: ServerOptions, work: Work) -> Server:
        server = Server(options, LoopbackAuthenticator(), ECHO_PERMISSIONS)
        server.add(SERVICE, EchoServicer(work), add_echo_to_server)
        return server

    return build
