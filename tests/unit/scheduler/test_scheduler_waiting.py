"""Waking, backing off, and streams in batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from rekindle_scheduler.domain.ids import ProjectId
from rekindle_scheduler.grpc.cases import in_batches
from rekindle_scheduler.reconciler import Backoff
from rekindle_servicekit.bell import Bell

PROJECT = ProjectId("p")


def test_pauses_double_up_to_the_longest() -> None:
    """0.5, 1, 2, then 3 seconds each."""
    backoff = Backoff(3.0, clock=lambda: 0.0)
    assert [0.5, 1.0, 2.0, 3.0, 3.0] == [backoff.fail(PROJECT) for _ in range(5)]


def test_a_success_ends_the_pause() -> None:
    """The project may be tried at once, and the next pause is a short one again."""
    now = [0.0]
    backoff = Backoff(30.0, clock=lambda: now[0])
    backoff.fail(PROJECT)
    assert not backoff.is_over(PROJECT)
    now[0] = 0.5
    assert backoff.is_over(PROJECT)
    assert backoff.succeed(PROJECT)
    assert not backoff.succeed(PROJECT)
    assert 0.5 == backoff.fail(PROJECT)


def test_a_ring_between_reading_and_waiting_is_not_missed() -> None:
    """Whoever took the count before it does not wait."""

    async def scene() -> None:
        bell = Bell()
        heard = bell.count
        bell.ring()
        await asyncio.wait_for(bell.wait(heard, 60.0), 1.0)

    asyncio.run(scene())


def test_a_ring_wakes_everybody() -> None:
    """And without one the wait ends by its time-out."""

    async def scene() -> None:
        bell = Bell()
        waiting = [asyncio.create_task(bell.wait(bell.count, 60.0)) for _ in range(3)]
        await asyncio.sleep(0)
        bell.ring()
        await asyncio.wait_for(asyncio.gather(*waiting), 1.0)
        await bell.wait(bell.count, 0.01)

    asyncio.run(scene())


async def numbers(count: int, *, fail: bool = False) -> AsyncIterator[int]:
    for number in range(count):
        yield number
    if fail:
        raise ConnectionError("gone")


def test_a_stream_comes_in_batches_in_its_order() -> None:
    """None is larger than allowed, nothing is lost."""

    async def scene() -> list[list[int]]:
        return [batch async for batch in in_batches(numbers(10), 4)]

    batches = asyncio.run(scene())
    assert list(range(10)) == [number for batch in batches for number in batch]
    assert max(map(len, batches)) <= 4


def test_an_error_of_the_stream_comes_behind_its_items() -> None:
    """What came before it is worked on."""
    seen: list[int] = []

    async def scene() -> None:
        async for batch in in_batches(numbers(3, fail=True), 10):
            seen.extend(batch)

    with pytest.raises(ConnectionError):
        asyncio.run(scene())
    assert [0, 1, 2] == seen
