"""Streams of registrations in batches."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from rekindle_scheduler.grpc.cases import in_batches


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
