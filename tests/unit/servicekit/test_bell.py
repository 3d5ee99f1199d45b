"""The bell that wakes whoever waits for a change."""

from __future__ import annotations

import asyncio

from rekindle_servicekit.bell import Bell


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
