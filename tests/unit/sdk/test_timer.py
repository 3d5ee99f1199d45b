"""The annotator's clock."""

from __future__ import annotations

from rekindle.timer import ActiveTimer


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def timer_of(clock: Clock) -> ActiveTimer:
    return ActiveTimer(idle_after_s=30.0, tool="viewer", clock=clock)


def active(timer: ActiveTimer) -> list[tuple[str, float]]:
    return [(segment.kind, segment.active_seconds) for segment in timer.segments()]


def test_time_between_touches_counts() -> None:
    """Gaps up to the limit are active time."""
    clock = Clock()
    timer = timer_of(clock)
    timer.start("reading")
    for gap in (10.0, 30.0, 5.0):
        clock.now += gap
        timer.touch()
    assert [("reading", 45.0)] == active(timer)


def test_idle_time_is_left_out() -> None:
    """A gap longer than the limit counts as nothing, and counting goes on after it."""
    clock = Clock()
    timer = timer_of(clock)
    timer.start("editing")
    clock.now += 20
    timer.touch()
    clock.now += 3600
    timer.touch()
    clock.now += 7
    timer.stop()
    assert [("editing", 27.0)] == active(timer)


def test_asking_is_no_sign_of_the_annotator() -> None:
    """Saving the time every few seconds does not keep an idle timer running."""
    clock = Clock()
    timer = timer_of(clock)
    timer.start("reading")
    for _ in range(20):
        clock.now += 10
        timer.segments()
    timer.stop()
    assert [] == active(timer)


def test_kinds_follow_each_other() -> None:
    """Starting a kind ends the one before; empty segments are left out."""
    clock = Clock()
    timer = timer_of(clock)
    timer.start("reading")
    timer.start("editing")
    clock.now += 12
    timer.start("reading")
    clock.now += 3
    assert [("editing", 12.0), ("reading", 3.0)] == active(timer)
    assert {"viewer"} == {segment.tool for segment in timer.segments()}


def test_nothing_is_measured_before_the_start_and_after_the_stop() -> None:
    """Touches of a timer that does not run count nothing."""
    clock = Clock()
    timer = timer_of(clock)
    clock.now += 5
    timer.touch()
    timer.start()
    clock.now += 4
    timer.stop()
    clock.now += 6
    timer.touch()
    assert [("reading", 4.0)] == active(timer)


def test_what_was_cut_does_not_change() -> None:
    """A cut ends the open segment and goes on in its kind: what was sent can be sent again, and nothing is lost."""
    clock = Clock()
    timer = timer_of(clock)
    timer.start("editing")
    clock.now += 10
    first = timer.cut()
    clock.now += 5
    second = timer.cut()
    assert [10.0] == [segment.active_seconds for segment in first]
    assert first == second[:1]
    assert (["editing"] * 2, [10.0, 5.0]) == (
        [segment.kind for segment in second],
        [segment.active_seconds for segment in second],
    )


def test_a_cut_is_no_sign_of_the_annotator() -> None:
    """The gap since the last touch goes on: past the limit the rest of it counts as nothing."""
    clock = Clock()
    timer = timer_of(clock)
    timer.start("reading")
    clock.now += 20
    timer.cut()
    clock.now += 20
    assert [20.0] == [segment.active_seconds for segment in timer.segments()]


def test_known_segments_are_restored_once() -> None:
    """Those of a ticket and those that are booked may be the same."""
    clock = Clock()
    timer = timer_of(clock)
    timer.start("reading")
    clock.now += 7
    measured = timer.cut()
    timer.restore(measured)
    assert measured == timer.cut()[:1]
    assert 1 == len([segment for segment in timer.segments() if segment == measured[0]])
