"""Windows of time in which training may run: wall-clock times of a place, through changes of its summer time."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from functools import cache
from typing import Final
from zoneinfo import ZoneInfo

from rekindle.errors import FieldViolation
from rekindle.vocabulary import TrainingWindow, Weekday

_DAYS: Final = tuple(Weekday)
_CLOCK: Final = re.compile(r"([01]\d|2[0-3]):[0-5]\d")
_DAY: Final = timedelta(days=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpeningTimes(TrainingWindow):
    """A training window that answers questions about moments.

    It opens at `start` and ends at the next `end` of the clock; the same for both are 24 hours. A time that a change
    of the clock skips counts as that much later; of one that comes twice the first counts.
    """

    def __post_init__(self) -> None:
        ordered = tuple(day for day in _DAYS if day in self.days)
        object.__setattr__(self, "days", ordered)

    def is_open(self, now: datetime) -> bool:
        """Whether `now`, a moment with time zone, lies in it; its end does not."""
        return self.opened_at(now) is not None

    def opened_at(self, now: datetime) -> datetime | None:
        """When the window in which `now` lies began; None where it lies in none, the earlier of two."""
        now, today = now.astimezone(UTC), self._day(now)
        # One that began yesterday may last until now.
        days = (day for day in (today - _DAY, today) if self._opens_on(day))
        return next((self._opens(day) for day in days if self._opens(day) <= now < self._ends(day)), None)

    def next_opening(self, now: datetime) -> datetime:
        """The first moment after `now` at which it opens, by the clock of its place."""
        now, today = now.astimezone(UTC), self._day(now)
        days = (today + number * _DAY for number in range(9))
        return next(self._opens(day) for day in days if self._opens_on(day) and self._opens(day) > now)

    def opening_words(self, now: datetime) -> str:
        """``opens at 20:00 Europe/Berlin``, with the day where that is not today."""
        opening = self.next_opening(now)
        day = "" if opening.date() == self._day(now) else f"on {_DAYS[opening.weekday()].capitalize()} "
        return f"opens {day}at {opening:%H:%M} {self.time_zone}"

    def _day(self, moment: datetime) -> date:
        return moment.astimezone(_zone(self.time_zone)).date()

    def _opens_on(self, day: date) -> bool:
        return not self.days or _DAYS[day.weekday()] in self.days

    def _opens(self, day: date) -> datetime:
        return self._moment(day, self.start)

    def _ends(self, day: date) -> datetime:
        return self._moment(day + _DAY if self.end <= self.start else day, self.end)

    def _moment(self, day: date, clock: str) -> datetime:
        zone = _zone(self.time_zone)
        local = datetime.combine(day, time.fromisoformat(clock), zone)
        # By way of UTC a skipped time becomes one that exists, and differences are those of elapsed time.
        return datetime.fromtimestamp(local.timestamp(), zone)


def window_violations(field: str, window: TrainingWindow) -> list[FieldViolation]:
    """Broken rules of a window."""
    violations = [
        FieldViolation(f"{field}.{name}", 'must be a time of day as "HH:MM", such as "20:00"')
        for name, value in (("start", window.start), ("end", window.end))
        if not _CLOCK.fullmatch(value)
    ]
    try:
        _zone(window.time_zone)
    except (ValueError, OSError, KeyError):  # ZoneInfoNotFoundError is a KeyError
        violations.append(
            FieldViolation(f"{field}.time_zone", 'is no known time zone: write an IANA name, such as "Europe/Berlin"')
        )
    return violations


@cache
def _zone(name: str) -> ZoneInfo:
    return ZoneInfo(name)
