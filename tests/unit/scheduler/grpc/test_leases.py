"""Asking for a case when there is none: by everybody who waits, every few seconds, for hours."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from google.protobuf.message import Message
from rekindle.api.scheduler.v1 import scheduler_pb2 as pb
from rekindle_scheduler.__main__ import SchedulerServicer
from rekindle_scheduler.grpc.base import Backend
from rekindle_servicekit import context
from rekindle_servicekit.bell import Bell
from rekindle_servicekit.workers import Workers
from scheduler_ports import ALICE, Bench


@pytest.fixture
def servicer(tmp_path: Path) -> Iterator[tuple[SchedulerServicer, Bench, Backend]]:
    """A project with one case to hand out, and the methods of its service."""
    bench, workers = Bench(tmp_path), Workers(max_threads=1)
    bench.annotating("v1")
    nobody: Any = None
    backend = Backend(state=bench.store, inference=nobody, bell=Bell(), workers=workers, stopping=asyncio.Event())
    yield SchedulerServicer(backend), bench, backend
    workers.close()


def call(method: Any, request: Message) -> Any:
    async def scene() -> Any:
        with context.bind(principal=ALICE):
            return await method(request, None)

    return asyncio.run(scene())


def kept(bench: Bench) -> int:
    """Answers that are remembered."""
    with bench.store.engine.connect() as connection:
        return connection.execute(sa.text("SELECT count(*) FROM requests")).scalar_one()


def test_an_answer_that_there_is_no_case_leaves_no_trace(servicer: tuple[SchedulerServicer, Bench, Backend]) -> None:
    """Nothing is stored and nobody is woken; the lease before it was kept, and told of."""
    methods, bench, backend = servicer

    def ask(request_id: str) -> Any:
        return call(methods.LeaseNextCase, pb.LeaseNextCaseRequest(project_id=bench.project_id, request_id=request_id))

    lease = ask("first").lease
    assert lease.lease_id
    before = kept(bench), backend.bell.count
    assert (1, 1) == before
    for number in range(20):
        assert ask(f"again {number}").HasField("none")
        session = pb.StartSessionRequest(project_id=bench.project_id, request_id=f"s {number}", minutes=30.0)
        assert call(methods.StartSession, session).HasField("none")
    assert before == (kept(bench), backend.bell.count)
    assert lease == ask("first").lease


def test_a_request_that_found_none_may_find_one_when_it_is_sent_again(
    servicer: tuple[SchedulerServicer, Bench, Backend],
) -> None:
    """It has changed nothing yet; once it has, it is answered with that."""
    methods, bench, _ = servicer
    request = pb.LeaseNextCaseRequest(project_id=bench.project_id, request_id="mine")
    other = pb.LeaseNextCaseRequest(project_id=bench.project_id, request_id="other")
    other.duration.FromSeconds(60)
    assert call(methods.LeaseNextCase, other).HasField("lease")
    assert call(methods.LeaseNextCase, request).HasField("none")
    bench.later(minutes=2)
    lease = call(methods.LeaseNextCase, request).lease
    assert lease.lease_id
    assert lease == call(methods.LeaseNextCase, request).lease
