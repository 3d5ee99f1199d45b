"""When the caller goes, the work behind the call stops: the tests watch the work, not the call."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import pytest
from rekindle.errors import Cancelled, CapacityExceeded, DeadlineExceeded
from rekindle_servicekit import context
from rekindle_servicekit.workers import Cancellation, Workers, run_cancellable

Stack = Callable[..., Any]
Eventually = Callable[..., Any]


class _Work:
    """Blocking work in small steps that can be watched."""

    def __init__(self) -> None:
        self.started = threading.Event()
        self.ended_by: BaseException | None = None
        self.ended = threading.Event()
        self.steps = 0

    def run(self, cancellation: Cancellation) -> bytes:
        self.started.set()
        try:
            for _ in range(3000):
                cancellation.raise_if_set()
                self.steps += 1
                time.sleep(0.01)
            return b"done"
        except BaseException as error:
            self.ended_by = error
            raise
        finally:
            self.ended.set()


def test_work_stops_when_the_caller_hangs_up(
    stack: Stack, kind: str, eventually: Eventually, caplog: pytest.LogCaptureFixture
) -> None:
    """A cancelled call of any kind ends the thread that worked for it, and is logged as cancelled."""
    caplog.set_level("INFO", "rekindle_servicekit.interceptors")
    work = _Work()

    async def serve_request(request: bytes, servicer_context: Any) -> bytes:
        return await run_cancellable(servicer_context, work.run)

    async def scenario() -> int:
        async with stack(serve_request) as running:
            call = asyncio.create_task(running.call(kind, b"x"))
            await eventually(work.started.is_set)
            call.cancel()
            await eventually(work.ended.is_set)
            steps = work.steps
            await asyncio.sleep(0.1)
            await eventually(lambda: any(hasattr(record, "code") for record in caplog.records))
            return work.steps - steps

    assert 0 == asyncio.run(scenario())
    assert isinstance(work.ended_by, Cancelled)
    assert ["CANCELLED"] == [vars(record)["code"] for record in caplog.records if hasattr(record, "code")]


def test_work_stops_at_the_deadline(stack: Stack, kind: str, eventually: Eventually) -> None:
    """When the deadline passes, the caller gets DEADLINE_EXCEEDED and the thread ends."""
    work = _Work()

    async def serve_request(request: bytes, servicer_context: Any) -> bytes:
        return await run_cancellable(servicer_context, work.run)

    async def scenario() -> grpc.StatusCode:
        async with stack(serve_request) as running:
            with pytest.raises(grpc.RpcError) as caught:
                await running.call(kind, b"x", timeout=0.3)
            await eventually(work.ended.is_set)
            return caught.value.code()

    assert grpc.StatusCode.DEADLINE_EXCEEDED is asyncio.run(scenario())
    assert 0 < work.steps < 200


def test_generator_ends_when_the_caller_hangs_up(stack: Stack, eventually: Eventually) -> None:
    """A streaming servicer's `finally` runs at once, in the call's own task, also while it is sending."""
    tasks: list[asyncio.Task[Any] | None] = []

    async def endless(request: bytes, servicer_context: Any) -> AsyncIterator[bytes]:
        tasks.append(asyncio.current_task())
        try:
            while True:
                yield bytes(1024 * 1024)
        finally:
            tasks.append(asyncio.current_task())

    async def scenario() -> None:
        async with stack(endless) as running:
            call = running.channel.unary_stream("/rekindle.tests.Echo/raw")(b"x")
            await call.read()
            assert 1 == len(tasks)
            call.cancel()
            await eventually(lambda: len(tasks) == 2)

    asyncio.run(scenario())
    assert tasks[0] is tasks[1]


def test_cancelling_waits_for_the_thread() -> None:
    """run_cancellable returns only when the thread is really over, even if cancelled again meanwhile."""
    over = threading.Event()
    started = threading.Event()

    def stubborn(cancellation: Cancellation) -> None:
        started.set()
        cancellation.wait(5)
        time.sleep(0.2)
        over.set()

    async def scenario() -> None:
        task = asyncio.create_task(run_cancellable(None, stubborn))
        while not started.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert over.is_set()

    asyncio.run(scenario())


def test_queued_work_never_starts_after_cancel() -> None:
    """Work that is cancelled while it waits for a thread is dropped."""
    release, ran = threading.Event(), threading.Event()

    async def scenario() -> None:
        workers = Workers(max_threads=1)
        busy = asyncio.create_task(workers.run_blocking(release.wait, 5))
        await asyncio.sleep(0.05)
        queued = asyncio.create_task(workers.run_cancellable(None, lambda _: ran.set()))
        await asyncio.sleep(0.05)
        queued.cancel()
        with pytest.raises(asyncio.CancelledError):
            await queued
        release.set()
        await busy
        workers.close()

    asyncio.run(scenario())
    assert not ran.is_set()


def test_full_queue_is_capacity_exceeded() -> None:
    """Beyond threads and queue the pool refuses, and takes work again once a place is free."""
    release = threading.Event()

    async def scenario() -> str:
        workers = Workers(max_threads=1, max_waiting=1)
        busy = [asyncio.create_task(workers.run_blocking(release.wait, 5)) for _ in range(2)]
        await asyncio.sleep(0.05)
        with pytest.raises(CapacityExceeded) as caught:
            await workers.run_blocking(int)
        release.set()
        await asyncio.gather(*busy)
        assert 7 == await workers.run_blocking(int, "7")
        workers.close()
        return caught.value.reason

    assert "QUEUE_FULL" == asyncio.run(scenario())


def test_context_variables_reach_the_thread() -> None:
    """Blocking work sees the ids of the call that it works for; results and errors come back."""

    def fail() -> None:
        raise LookupError("from the thread")

    async def scenario() -> dict[str, str]:
        workers = Workers(max_threads=1)
        with pytest.raises(LookupError, match="from the thread"):
            await workers.run_blocking(fail)
        with context.bind(request_id="q1", run="r1"):
            seen = await workers.run_blocking(context.ids)
        workers.close()
        return seen

    assert {"request_id": "q1", "run": "r1"} == asyncio.run(scenario())


def test_token_knows_why() -> None:
    """The token tells a caller who has gone from a deadline that has passed."""
    called_off, late, free = Cancellation(), Cancellation(timeout_s=0.0), Cancellation(timeout_s=60)
    called_off.set()
    with pytest.raises(Cancelled):
        called_off.raise_if_set()
    with pytest.raises(DeadlineExceeded):
        late.raise_if_set()
    free.raise_if_set()
    assert [True, True, False] == [called_off.is_set(), late.is_set(), free.wait(0.01)]
    assert (None, 0.0) == (called_off.time_remaining_s(), late.time_remaining_s())
