"""A stream in batches: as many as have come, without waiting for more."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

T = TypeVar("T")

_END = object()


async def in_batches(items: AsyncIterator[T], largest: int) -> AsyncIterator[list[T]]:
    """What came while the last batch was worked on, at most `largest`; a slow sender is answered one by one.

    An error of the stream is raised behind the items before it.
    """
    # Bounded, so that a sender who is faster than we are is held back by flow control.
    queue: asyncio.Queue[object] = asyncio.Queue(largest)
    filling = asyncio.create_task(_fill(queue, items))
    try:
        while True:
            batch = [await queue.get()]
            while len(batch) < largest and not queue.empty():
                batch.append(queue.get_nowait())
            has_ended = batch[-1] is _END
            wanted: list[T] = [item for item in batch if item is not _END]  # type: ignore[misc]  # pyright: ignore[reportAssignmentType]
            if wanted:
                yield wanted
            if has_ended:
                await filling
                return
    finally:
        filling.cancel()


async def _fill(queue: asyncio.Queue[object], items: AsyncIterator[T]) -> None:
    try:
        async for item in items:
            await queue.put(item)
    finally:
        await queue.put(_END)
