"""When a window of training is open, by the clock of its place. Offsets of Berlin and Sao Paulo by hand."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from rekindle.vocabulary import Weekday
from rekindle_trainer.domain.limits import TrainingLimits, gpu_seconds, limits_violations
from rekindle_trainer.domain.runs import Attempt, AttemptState
from rekindle_trainer.domain.windows import OpeningTimes

NIGHT = OpeningTimes(start="20:00", end="06:00", time_zone="Europe/Berlin")
WEEKDAY_NIGHTS = OpeningTimes(start="20:00", end="06:00", time_zone="Europe/Berlin", days=tuple(Weekday)[:5])
OFFICE = OpeningTimes(start="09:00", end="17:30", time_zone="UTC", days=(Weekday.MONDAY,))
SATURDAY = OpeningTimes(start="00:00", end="00:00", time_zone="Europe/Berlin", days=(Weekday.SATURDAY,))
#: Two skipped hours' worth: 02:30 does not exist on 29 March 2026, and comes twice on 25 October 2026.
EARLY = OpeningTimes(start="02:30", end="05:00", time_zone="Europe/Berlin")
LATE = OpeningTimes(start="22:00", end="02:30", time_zone="Europe/Berlin")


@pytest.mark.parametrize(
    ("window", "moment", "is_open"),
    [
        # Winter: Berlin is UTC+1.
        (NIGHT, "2026-01-14T18:59:59+00:00", False),
        (NIGHT, "2026-01-14T19:00:00+00:00", True),
        (NIGHT, "2026-01-15T04:59:59+00:00", True),
        (NIGHT, "2026-01-15T05:00:00+00:00", False),
        # Summer: UTC+2.
        (NIGHT, "2026-07-14T18:00:00+00:00", True),
        (NIGHT, "2026-07-15T04:00:00+00:00", False),
        # The nights of the changes end at 06:00 of the clock, after 9 and after 11 hours.
        (NIGHT, "2026-03-29T03:59:59+00:00", True),
        (NIGHT, "2026-03-29T04:00:00+00:00", False),
        (NIGHT, "2026-10-25T04:59:59+00:00", True),
        (NIGHT, "2026-10-25T05:00:00+00:00", False),
        # A start that is skipped comes an hour later by the clock: 03:30 of UTC+2.
        (EARLY, "2026-03-29T01:29:59+00:00", False),
        (EARLY, "2026-03-29T01:30:00+00:00", True),
        # Of a time that comes twice, the first (of UTC+2) opens and the first ends.
        (EARLY, "2026-10-25T00:29:59+00:00", False),
        (EARLY, "2026-10-25T00:30:00+00:00", True),
        (LATE, "2026-10-25T00:29:59+00:00", True),
        (LATE, "2026-10-25T00:30:00+00:00", False),
        # Friday's night lasts into Saturday, whose own does not open. 16 January 2026 is a Friday.
        (WEEKDAY_NIGHTS, "2026-01-16T23:30:00+00:00", True),
        (WEEKDAY_NIGHTS, "2026-01-17T19:30:00+00:00", False),
        (WEEKDAY_NIGHTS, "2026-01-19T03:00:00+00:00", False),
        (OFFICE, "2026-01-19T17:29:59+00:00", True),
        (OFFICE, "2026-01-19T17:30:00+00:00", False),
        (OFFICE, "2026-01-20T12:00:00+00:00", False),
        # All of Saturday, by Berlin's clock.
        (SATURDAY, "2026-01-16T23:00:00+00:00", True),
        (SATURDAY, "2026-01-17T22:59:59+00:00", True),
        (SATURDAY, "2026-01-17T23:00:00+00:00", False),
        # The moment's own zone does not matter: 19:30 in Sao Paulo is 23:30 in Berlin.
        (NIGHT, "2026-01-14T19:30:00-03:00", True),
    ],
)
def test_a_window_follows_the_clock_of_its_place(window: OpeningTimes, moment: str, is_open: bool) -> None:
    """Open from its start on and no longer at its end, across midnight, days of the week and summer time."""
    assert is_open is window.is_open(datetime.fromisoformat(moment))


@pytest.mark.parametrize(
    ("window", "moment", "opening", "words"),
    [
        (NIGHT, "2026-01-14T05:00:00+00:00", "2026-01-14T19:00:00+00:00", "opens at 20:00 Europe/Berlin"),
        (NIGHT, "2026-03-28T19:00:00+00:00", "2026-03-29T18:00:00+00:00", "opens on Sunday at 20:00 Europe/Berlin"),
        (WEEKDAY_NIGHTS, "2026-01-17T08:00:00+00:00", "2026-01-19T19:00:00+00:00", "opens on Monday at 20:00"),
        (OFFICE, "2026-01-19T09:00:00+00:00", "2026-01-26T09:00:00+00:00", "opens on Monday at 09:00 UTC"),
        (EARLY, "2026-03-29T00:00:00+00:00", "2026-03-29T01:30:00+00:00", "opens at 03:30 Europe/Berlin"),
    ],
)
def test_a_window_says_when_it_opens(window: OpeningTimes, moment: str, opening: str, words: str) -> None:
    """The next opening after a moment, named by its day where that is another one."""
    now = datetime.fromisoformat(moment)
    assert datetime.fromisoformat(opening) == window.next_opening(now)
    assert words in window.opening_words(now)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"start": "8:00"}, "limits.window.start"),
        ({"end": "24:00"}, "limits.window.end"),
        ({"end": "20:00:00"}, "limits.window.end"),
        ({"time_zone": "Europe/Atlantis"}, "limits.window.time_zone"),
        ({"time_zone": "../etc/passwd"}, "limits.window.time_zone"),
        ({"time_zone": ""}, "limits.window.time_zone"),
        ({"time_zone": "Europe"}, "limits.window.time_zone"),
    ],
)
def test_a_window_that_cannot_be_is_named(changes: dict[str, object], field: str) -> None:
    """The one field that is wrong."""
    values: dict[str, object] = {"start": "20:00", "end": "06:00", "time_zone": "Europe/Berlin", **changes}
    window = OpeningTimes(**values)  # type: ignore[arg-type]
    assert [field] == [each.field for each in limits_violations("limits", TrainingLimits(version=1, window=window))]


@pytest.mark.parametrize("budget", [-1.0, float("nan"), float("inf")])
def test_a_budget_is_a_number_of_seconds(budget: float) -> None:
    """Negative, endless and undefined ones are refused, and so is a version below 1."""
    found = limits_violations("limits", TrainingLimits(version=0, gpu_seconds_budget=budget))
    assert ["limits.version", "limits.gpu_seconds_budget"] == [each.field for each in found]


def test_gpu_seconds_are_those_of_processes_that_ran() -> None:
    """4 GPUs for 10 s and 2 for 30 s so far; a process that never began counts for nothing."""
    now = datetime.fromisoformat("2026-01-14T12:00:00+00:00")

    def at(second: int) -> datetime:
        return datetime.fromisoformat(f"2026-01-14T11:59:{second:02}+00:00")

    ended = Attempt(
        run_id="r",
        number=1,
        state=AttemptState.DIED,
        claimed_at=at(0),
        began_at=at(5),
        ended_at=at(15),
        exit_code=-9,
        gpus=4,
    )
    runs = Attempt(run_id="r", number=2, state=AttemptState.OPEN, claimed_at=at(20), began_at=at(30), gpus=2)
    waits = Attempt(run_id="q", number=1, state=AttemptState.OPEN, claimed_at=at(0), gpus=8)
    lost = Attempt(run_id="q", number=2, state=AttemptState.LOST, claimed_at=at(0), ended_at=at(40), gpus=8)
    unseen = Attempt(
        run_id="q",
        number=3,
        state=AttemptState.SUCCEEDED,
        claimed_at=at(40),
        ended_at=at(43),
        exit_code=0,
        gpus=1,
    )
    assert 4 * 10 + 2 * 30 + 3 == gpu_seconds([ended, runs, waits, lost, unseen], now)


def test_attempts_of_a_release_before_count_from_their_beginning() -> None:
    """It did not note the work between: what is seen first after an update stands for all of it."""
    began, now = (datetime.fromisoformat(f"2026-01-14T11:{minute}:00+00:00") for minute in ("00", "50"))
    known = Attempt(run_id="r", number=1, state=AttemptState.OPEN, claimed_at=began, began_at=began, gpus=1)
    assert 3000 == gpu_seconds([known], now) == gpu_seconds([known.see(now, at_work=True)], now)
    paused = known.see(now, at_work=False)
    assert 3000 == gpu_seconds([paused], now + timedelta(hours=1))
