"""The server of a service: limits, interceptors, health on two ports, reflection, an orderly end."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection
from rekindle.errors import DependencyUnavailable, InvalidInput
from rekindle.hosts import is_local_address

from rekindle_servicekit.identity import Authenticator
from rekindle_servicekit.interceptors import default_interceptors
from rekindle_servicekit.metrics import MeasureCalls, Metrics, NoteRefusals
from rekindle_servicekit.permissions import PERMISSIONS, Permission

_log = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
#: Largest message of the trainer in bytes: a run names every example, some 150,000 of them.
MAX_TRAINER_MESSAGE_BYTES = 32 * 1024 * 1024
MAX_CONCURRENT_STREAMS = 100

_CHANNEL_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.max_concurrent_streams", MAX_CONCURRENT_STREAMS),
    # Two services on one port would take turns in answering; the second one must fail instead.
    ("grpc.so_reuseport", 0),
    # Dead peers are found within 80 s; clients that ping more often than every 10 s are dropped.
    ("grpc.keepalive_time_ms", 60_000),
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ("grpc.http2.max_ping_strikes", 2),
)

#: Background work; it ends when the event is set.
Background = Callable[[asyncio.Event], Awaitable[None]]


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How a service listens."""

    #: ``host:port`` or ``unix:path``; port 0 takes a free one.
    address: str = "127.0.0.1:0"
    #: Address that answers health alone, in plain text, for probes without credentials; None for no such address.
    health_address: str | None = "127.0.0.1:0"
    #: Address that answers ``GET /metrics`` over plain HTTP; None for no such address.
    metrics_address: str | None = None
    #: Allow plain text beyond the loopback interface.
    insecure: bool = False
    #: TLS of the main port; None for plain text.
    credentials: grpc.ServerCredentials | None = None
    reflection: bool = True
    require_deadline: bool = False
    #: Largest request and largest response, in bytes.
    max_message_bytes: int = MAX_MESSAGE_BYTES
    #: Interval of checking the caller of a long call again; the call ends once the caller is refused.
    check_callers_every_s: float = 30.0
    #: After this a connection takes no new calls, so that its peer shows its certificate again; running calls finish.
    max_connection_age_s: float = 3600.0
    #: Time that calls may still run after the first signal to stop.
    grace_s: float = 10.0
    #: File for the addresses in use, as JSON, for the program that started the process.
    port_file: Path | None = None


class Server:
    """A gRPC server with all that every service needs around its own servicers."""

    def __init__(
        self,
        options: ServerOptions,
        authenticator: Authenticator,
        permissions: Mapping[str, Permission] = PERMISSIONS,
    ) -> None:
        check_exposure(options)
        self._options = options
        #: Metrics of the calls; a service adds its own to the registry.
        self.metrics = Metrics()
        interceptors = default_interceptors(
            authenticator,
            require_deadline=options.require_deadline,
            permissions=permissions,
            check_every_s=options.check_callers_every_s,
            outside=[MeasureCalls(self.metrics)],
            inside=[NoteRefusals(self.metrics)],
        )
        own = (
            ("grpc.max_connection_age_ms", round(1000 * options.max_connection_age_s)),
            ("grpc.max_receive_message_length", options.max_message_bytes),
            ("grpc.max_send_message_length", options.max_message_bytes),
        )
        self._main = grpc.aio.server(interceptors=list(interceptors), options=(*_CHANNEL_OPTIONS, *own))
        self._probes = grpc.aio.server(options=_CHANNEL_OPTIONS)
        self._health = _async_health()
        self._names: list[str] = []
        for server in (self._main, self._probes):
            health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        #: Set when the server is about to end: endless streams end themselves then.
        self.stopping = asyncio.Event()
        self.address = options.address
        self.health_address = options.health_address
        self.metrics_address = options.metrics_address

    def add(self, name: str, servicer: Any, add_to_server: Callable[[Any, grpc.aio.Server], None]) -> None:
        """Serve `servicer` by the generated `add_to_server`; health knows it as `name`. Before `start`."""
        add_to_server(servicer, self._main)
        self._names.append(name)

    async def set_serving(self, name: str, is_serving: bool) -> None:
        """What health says of the service `name` from now on; the empty name is the whole server."""
        known = health_pb2.HealthCheckResponse
        await self._health.set(name, known.SERVING if is_serving else known.NOT_SERVING)

    async def start(self) -> None:
        """Listen; the addresses then hold the ports taken. DependencyUnavailable where one is in use."""
        options = self._options
        if options.reflection:
            names = [*self._names, health.SERVICE_NAME, reflection.SERVICE_NAME]
            reflection.enable_server_reflection(names, self._main)
        self.address = _bind(self._main, options.address, options.credentials)
        if options.health_address is not None:
            self.health_address = _bind(self._probes, options.health_address, None)
        if options.metrics_address is not None:
            self.metrics_address = self.metrics.serve(options.metrics_address)
        for name in self._names:
            await self.set_serving(name, True)
        await self._main.start()
        if options.health_address is not None:
            await self._probes.start()
        if options.port_file is not None:
            self._write_port_file(options.port_file)
        _log.info("listening on %s", self.address, extra={"action": "server.started"})

    async def stop(self, grace_s: float | None = None) -> None:
        """Say NOT_SERVING, take no new calls, and end when those that run have ended, or after the grace."""
        self.stopping.set()
        await self._health.enter_graceful_shutdown()
        grace = self._options.grace_s if grace_s is None else grace_s
        await self._main.stop(grace)
        await self._probes.stop(0)
        self.metrics.close()
        if self._options.port_file is not None:
            self._options.port_file.unlink(missing_ok=True)
        _log.info("stopped", extra={"action": "server.stopped"})

    def _write_port_file(self, path: Path) -> None:
        addresses = {"pid": os.getpid(), "address": self.address, "port": _port(self.address)}
        if self._options.health_address is not None and self.health_address is not None:
            addresses |= {"health_address": self.health_address, "health_port": _port(self.health_address)}
        if self.metrics_address is not None:
            addresses |= {"metrics_address": self.metrics_address}
        path.parent.mkdir(parents=True, exist_ok=True)
        staged = path.with_name(f".{path.name}.{os.getpid()}")
        staged.write_text(json.dumps(addresses))
        staged.replace(path)


async def serve(server: Server, background: Sequence[Background] = ()) -> None:
    """Run `server` and its background work until SIGTERM or SIGINT; a second signal ends it at once.

    Work that fails takes the server down with it, and its error is raised here: a service without its
    background work only looks alive.
    """
    signalled, hurried = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        (hurried if signalled.is_set() else signalled).set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    await server.start()
    work = [asyncio.ensure_future(_run_background(task, server.stopping)) for task in background]
    waiting = [asyncio.create_task(signalled.wait()), *work]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        await _stop_unless_hurried(server, hurried)
        await _end_background(work, hurried)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        waiting[0].cancel()
    for task in work:
        if not task.cancelled():
            task.result()


async def _run_background(task: Background, stopping: asyncio.Event) -> None:
    await task(stopping)
    if not stopping.is_set():
        raise RuntimeError("background work ended by itself")


async def _stop_unless_hurried(server: Server, hurried: asyncio.Event) -> None:
    orderly, hurry = asyncio.create_task(server.stop()), asyncio.create_task(hurried.wait())
    await asyncio.wait([orderly, hurry], return_when=asyncio.FIRST_COMPLETED)
    if not orderly.done():
        await server.stop(0)
    hurry.cancel()
    await orderly


async def _end_background(work: Sequence[asyncio.Future[None]], hurried: asyncio.Event) -> None:
    if not work:
        return
    hurry = asyncio.create_task(hurried.wait())
    ending = asyncio.gather(*work, return_exceptions=True)
    await asyncio.wait([ending, hurry], return_when=asyncio.FIRST_COMPLETED)
    hurry.cancel()
    if not ending.done():
        ending.cancel()
        await asyncio.wait(work)


def check_exposure(options: ServerOptions) -> None:
    """InvalidInput where the options would offer plain text to other machines without saying so."""
    if options.insecure or options.credentials is not None or is_local_address(options.address):
        return
    raise InvalidInput(
        f"address {options.address} can be reached from other machines and has no TLS: set tls_certificate and "
        "tls_key, or listen on 127.0.0.1, or set insecure=true where the network itself is trusted",
        reason="INSECURE_ADDRESS",
    )


def _async_health() -> Any:
    # health.aio is assigned where the stubs do not see it.
    return cast("Any", health).aio.HealthServicer()


def _bind(server: grpc.aio.Server, address: str, credentials: grpc.ServerCredentials | None) -> str:
    try:
        if credentials is None:
            port = server.add_insecure_port(address)
        else:
            port = server.add_secure_port(address, credentials)
    except RuntimeError as error:
        raise DependencyUnavailable(
            f"cannot listen on {address}: another process may be using it", reason="ADDRESS_IN_USE"
        ) from error
    return address if address.startswith("unix:") else f"{address.rpartition(':')[0]}:{port}"


def _port(address: str) -> int | None:
    return None if address.startswith("unix:") else int(address.rpartition(":")[2])
