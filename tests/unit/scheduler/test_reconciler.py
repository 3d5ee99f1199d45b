"""Pauses of the reconciler: after failures, and after long looks that found nothing to do."""

from __future__ import annotations

import pytest
from rekindle_scheduler.domain.ids import ProjectId
from rekindle_scheduler.reconciler import Backoff, IdleThrottle

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


@pytest.mark.parametrize(("took_s", "pause_s"), [(0.15, 0.0), (0.3, 2.7), (2.0, 18.0), (10.0, 30.0)])
def test_a_look_takes_a_tenth_of_the_time_at_most(took_s: float, pause_s: float) -> None:
    """Nine times as long a rest, up to the longest pause; short looks need none."""
    now = [100.0]
    throttle = IdleThrottle(30.0, clock=lambda: now[0])
    throttle.after(ProjectId("p"), took_s)
    if pause_s:
        now[0] += pause_s - 0.01
        assert not throttle.is_over(ProjectId("p"))
        now[0] += 0.02
    assert throttle.is_over(ProjectId("p"))
    assert throttle.is_over(ProjectId("another"))
