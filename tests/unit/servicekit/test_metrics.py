"""Metrics: what of the calls is counted, and where it can be read."""

from __future__ import annotations

import asyncio
import json
import urllib.request
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from rekindle.errors import DependencyUnavailable, LeaseLost, RekindleError
from rekindle_servicekit.metrics import Metrics, StateCollector
from rekindle_servicekit.server import ServerOptions

Stack = Callable[..., Any]
_METHOD = "rekindle.tests.Echo/unary_unary"


def _scrape(address: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def _count(samples: dict[Any, float], code: str) -> float:
    labels = (("rpc_method", _METHOD), ("rpc_response_status_code", code))
    return samples.get(("rpc_server_call_duration_seconds_count", labels), 0.0)


def test_calls_are_counted_by_method_and_status(stack: Stack, tmp_path: Path) -> None:
    """A call that succeeds and one that is refused count once each, under their codes, and take time."""

    async def work(request: bytes, _: Any) -> bytes:
        if request == b"late":
            raise LeaseLost("too late")
        await asyncio.sleep(0.02)
        return request

    async def scenario() -> dict[Any, float]:
        options = ServerOptions(metrics_address="127.0.0.1:0", port_file=tmp_path / "ports.json")
        async with stack(work, options) as running:
            await running.call("unary_unary", b"x")
            with pytest.raises(grpc.RpcError):
                await running.call("unary_unary", b"late")
            address = json.loads((tmp_path / "ports.json").read_text())["metrics_address"]
            return await asyncio.to_thread(_scrape, address)

    samples = asyncio.run(scenario())
    assert (1, 1, 0) == tuple(_count(samples, code) for code in ("OK", "ABORTED", "UNKNOWN"))
    labels = (("rpc_method", _METHOD), ("rpc_response_status_code", "OK"))
    assert 0.02 <= samples["rpc_server_call_duration_seconds_sum", labels] < 5


def test_probes_are_not_counted(stack: Stack) -> None:
    """Health checks come every few seconds and would drown the rest."""

    async def work(request: bytes, _: Any) -> bytes:
        return request

    async def scenario() -> dict[Any, float]:
        async with stack(work, ServerOptions(metrics_address="127.0.0.1:0")) as running:
            async with grpc.aio.insecure_channel(running.server.address) as channel:
                await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=5)
            return await asyncio.to_thread(_scrape, running.server.metrics_address)

    assert not [key for key in asyncio.run(scenario()) if key[0].startswith("rpc_server_call_duration_seconds_count")]


def test_listeners_hear_of_refusals(stack: Stack) -> None:
    """A service is told of each error before it becomes a status, to count it by its reason."""
    heard: list[tuple[str, str]] = []

    def listen(method: str, error: RekindleError) -> None:
        heard.append((method, error.reason))

    async def work(_: bytes, __: Any) -> bytes:
        raise LeaseLost("too late")

    async def scenario() -> None:
        async with stack(work) as running:
            running.server.metrics.on_error(listen)
            with pytest.raises(grpc.RpcError):
                await running.call("unary_unary", b"x")

    asyncio.run(scenario())
    assert [(f"/{_METHOD}", LeaseLost("").reason)] == heard


def test_a_port_in_use_is_told() -> None:
    """Two processes on one metrics port: the second says which setting is wrong."""
    first, second = Metrics(), Metrics()
    address = first.serve("127.0.0.1:0")
    try:
        with pytest.raises(DependencyUnavailable, match="metrics cannot be served"):
            second.serve(address)
    finally:
        first.close()


def test_metrics_of_the_state_are_read_at_most_every_so_often() -> None:
    """Two scrapes in a row read the state once; while it is away there are no figures, and scraping goes on."""
    reads: list[int] = []

    def read() -> Iterable[Metric]:
        reads.append(1)
        if len(reads) > 1:
            raise DependencyUnavailable("the database is away")
        return [GaugeMetricFamily("cases", "Cases", value=3)]

    def scrape(collector: StateCollector) -> list[float]:
        registry = CollectorRegistry()
        registry.register(collector)
        return [sample.value for family in registry.collect() for sample in family.samples]

    patient, eager = StateCollector(read, every_s=60), StateCollector(read, every_s=0)
    assert ([3], [3]) == (scrape(patient), scrape(patient))
    assert 1 == len(reads)
    assert [] == scrape(eager)
