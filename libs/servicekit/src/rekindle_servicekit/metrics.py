"""Metrics of a service for Prometheus: how its calls end and how long they take, and room for its own."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Iterable
from contextlib import asynccontextmanager
from threading import Lock, Thread
from typing import Final
from wsgiref.simple_server import WSGIServer

import grpc
from prometheus_client import CollectorRegistry, Histogram, start_http_server
from prometheus_client.gc_collector import GCCollector
from prometheus_client.metrics_core import Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from rekindle.errors import DependencyUnavailable, RekindleError
from rekindle.status import status_code

from rekindle_servicekit.interceptors import Call, Surround, ended_with

_log = logging.getLogger(__name__)

#: Told of each call that ended with an error of ours, after it was counted.
OnError = Callable[[str, RekindleError], None]

_BUCKETS_S: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1800)


class Metrics:
    """What one process measures. Labels never hold a case, patient, file or annotator."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        GCCollector(registry=self.registry)
        # OpenTelemetry's convention rpc.server.call.duration, in Prometheus' spelling.
        self._calls = Histogram(
            "rpc_server_call_duration_seconds",
            "How long calls took, by method and status code",
            ["rpc_method", "rpc_response_status_code"],
            buckets=_BUCKETS_S,
            registry=self.registry,
        )
        self._on_error: list[OnError] = []
        self._server: tuple[WSGIServer, Thread] | None = None

    def on_error(self, listener: OnError) -> None:
        """Have `listener` told (method, error) of every call that is refused."""
        self._on_error.append(listener)

    def call_ended(self, method: str, code: grpc.StatusCode, duration_s: float) -> None:
        """Count one call; `method` as gRPC writes it, with the slash in front."""
        self._calls.labels(method.removeprefix("/"), code.name).observe(duration_s)

    def call_refused(self, method: str, error: RekindleError) -> None:
        """Tell the listeners."""
        for listener in self._on_error:
            listener(method, error)

    def serve(self, address: str) -> str:
        """Answer ``GET /metrics`` on host:port from now on; the address taken. DependencyUnavailable."""
        host, _, port = address.rpartition(":")
        try:
            self._server = start_http_server(int(port), host.strip("[]"), registry=self.registry)
        except OSError as error:
            raise DependencyUnavailable(
                f"metrics cannot be served on {address}: another process may be using it", reason="ADDRESS_IN_USE"
            ) from error
        return f"{host}:{self._server[0].server_port}"

    def close(self) -> None:
        """Answer no more."""
        if self._server is not None:
            server, thread = self._server
            server.shutdown()
            server.server_close()
            thread.join()
            self._server = None


def code_of(failure: BaseException | None) -> str:
    """The status code of work that ended so, in the words that calls have: `OK`, `UNAVAILABLE`, ..."""
    if failure is None:
        return grpc.StatusCode.OK.name
    return (status_code(failure) if isinstance(failure, RekindleError) else grpc.StatusCode.INTERNAL).name


class StateCollector(Collector):
    """Metrics that are read from a service's state when they are asked for, at most every `every_s`.

    While the state cannot be read there are none: their absence is what an alert can see.
    """

    def __init__(self, read: Callable[[], Iterable[Metric]], *, every_s: float = 10.0) -> None:
        self._read = read
        self._every_s = every_s
        self._lock = Lock()
        self._last: list[Metric] = []
        self._read_at = -math.inf

    def describe(self) -> Iterable[Metric]:
        """Nothing: the registry need not read the state to know the names."""
        return []

    def collect(self) -> Iterable[Metric]:
        with self._lock:
            if time.monotonic() - self._read_at >= self._every_s:
                self._last = self._fresh()
                self._read_at = time.monotonic()
            return self._last

    def _fresh(self) -> list[Metric]:
        try:
            return list(self._read())
        except RekindleError as error:
            _log.warning("%s: %s", error.reason, error.message, extra={"action": "metrics.unread"})
            return []


class MeasureCalls(Surround):
    """Counts and times every call but the probes."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncGenerator[None]:
        started = time.monotonic()
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:
            failure = error
            raise
        finally:
            if not call.is_probe():
                self._metrics.call_ended(call.method, ended_with(call, failure), time.monotonic() - started)


class NoteRefusals(Surround):
    """Tells of errors while they still are what the use case raised."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncGenerator[None]:
        try:
            yield
        except RekindleError as error:
            self._metrics.call_refused(call.method, error)
            raise
