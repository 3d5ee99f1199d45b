"""Background loops: turns, waits, failures and the end."""

from __future__ import annotations

import asyncio
import logging

import pytest
from rekindle.errors import Cancelled, DependencyUnavailable
from rekindle_servicekit.bell import Bell
from rekindle_servicekit.loops import run_until_stopped

_FOREVER_S = 3600.0


class Turns:
    """A step that answers, or fails, as it is told, and stops the loop behind its last turn."""

    def __init__(self, stopping: asyncio.Event, *outcomes: float | BaseException | None) -> None:
        self._stopping = stopping
        self._outcomes = list(outcomes)
        self.count = 0

    async def __call__(self) -> float | None:
        outcome = self._outcomes[self.count]
        self.count += 1
        if self.count == len(self._outcomes):
            self._stopping.set()
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


def _run(*outcomes: float | BaseException | None, interval_s: float = 0.0, backoff_max_s: float | None = None) -> Turns:
    async def main() -> Turns:
        stopping = asyncio.Event()
        turns = Turns(stopping, *outcomes)
        await run_until_stopped(turns, stopping, name="work", interval_s=interval_s, backoff_max_s=backoff_max_s)
        return turns

    return asyncio.run(main())


def test_turns_follow_each_other_until_stopped() -> None:
    """A step that has more to do has its next turn at once, whatever the interval, until the loop is stopped."""
    assert 4 == _run(0, 0, 0, 0, interval_s=_FOREVER_S).count


def test_failing_turn_does_not_end_the_loop(caplog: pytest.LogCaptureFixture) -> None:
    """Errors of ours and unforeseen ones are logged under the loop's name, and the next turn comes."""
    with caplog.at_level(logging.INFO):
        assert 4 == _run(DependencyUnavailable("away"), ValueError("odd"), Cancelled("cut"), 0).count
    actions = [record.__dict__.get("action") for record in caplog.records]
    assert ["work.waiting", "work.error"] == [action for action in actions if action]


def test_stop_ends_a_wait() -> None:
    """A loop that waits for its interval ends when it is stopped."""

    async def main() -> int:
        stopping, count = asyncio.Event(), 0

        async def step() -> None:
            nonlocal count
            count += 1
            asyncio.get_running_loop().call_soon(stopping.set)

        await run_until_stopped(step, stopping, name="work", interval_s=_FOREVER_S)
        return count

    assert 1 == asyncio.run(asyncio.wait_for(main(), 60))


def test_ring_ends_a_wait() -> None:
    """A ring during a turn, or while the loop waits, brings the next turn at once."""

    async def main() -> int:
        stopping, bell, count = asyncio.Event(), Bell(), 0

        async def step() -> None:
            nonlocal count
            count += 1
            if count == 1:
                bell.ring()  # while the turn is under way
            elif count == 2:
                asyncio.get_running_loop().call_soon(bell.ring)
            else:
                stopping.set()

        await run_until_stopped(step, stopping, name="work", interval_s=_FOREVER_S, bell=bell)
        return count

    assert 3 == asyncio.run(asyncio.wait_for(main(), 60))


def test_ring_before_a_failure_does_not_cut_the_pause_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that rings and then fails is not tried at once, again and again: the wait doubles up to its limit."""
    waits = _recorded_waits(monkeypatch)

    async def main() -> None:
        stopping, bell = asyncio.Event(), Bell()

        async def step() -> None:
            bell.ring()
            if len(waits) == 5:
                stopping.set()
            raise DependencyUnavailable("away")

        await run_until_stopped(step, stopping, name="work", interval_s=0.5, bell=bell, backoff_max_s=10.0)

    asyncio.run(asyncio.wait_for(main(), 60))
    assert [(True, 1.0), (True, 2.0), (True, 4.0), (True, 8.0), (True, 10.0)] == waits[:5]


def test_success_ends_the_back_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a turn that went well the interval holds again, and the next failure begins at the first wait."""
    waits = _recorded_waits(monkeypatch)
    _run(DependencyUnavailable("away"), DependencyUnavailable("away"), None, DependencyUnavailable("away"), 0,
         interval_s=7.0, backoff_max_s=60.0)  # fmt: skip
    assert [1.0, 2.0, 7.0, 1.0] == [wait_s for _, wait_s in waits]


def _recorded_waits(monkeypatch: pytest.MonkeyPatch) -> list[tuple[bool, float]]:
    """Waits that a loop asks for, without waiting: whether the bell was silent since, and for how long."""
    waits: list[tuple[bool, float]] = []

    async def wait_unless(bell: Bell, stopping: asyncio.Event, heard: int, timeout_s: float) -> None:
        waits.append((bell.count == heard, timeout_s))

    monkeypatch.setattr(Bell, "wait_unless", wait_unless)
    return waits
