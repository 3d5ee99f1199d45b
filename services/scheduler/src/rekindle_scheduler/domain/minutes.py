"""The ledger: which time segments may be booked, their sums, and real minutes against predicted ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Final

from rekindle.errors import FieldViolation, InvalidInput
from rekindle.vocabulary import TimeSegment, TimeSource

from rekindle_scheduler.domain.records import LedgerEntry, LedgerSummary, RoundMinutes

MAX_SEGMENT_SECONDS: Final = 24 * 3600.0
#: Difference that is allowed between starts and counted seconds: wall clocks are set while tools run.
CLOCK_TOLERANCE: Final = timedelta(seconds=1)
#: Range of starts, so that a segment lies within the calendar in every time zone.
_FIRST_START: Final = datetime(1900, 1, 1, tzinfo=UTC)
_LAST_START: Final = datetime.max.replace(tzinfo=UTC) - timedelta(days=2)
#: Number of cases that the prior belief in the prediction is worth.
_PRIOR_CASES: Final = 5.0
_FACTOR_RANGE: Final = (0.1, 10.0)


def check_segments(
    segments: Sequence[TimeSegment],
    *,
    held_from: datetime,
    held_until: datetime,
    earlier: Iterable[TimeSegment] = (),
    booked: Iterable[TimeSegment] = (),
) -> None:
    """InvalidInput where a segment cannot be booked for a case held in the given interval.

    `earlier` are the same annotator's booked segments, of any case, that may reach into that interval; `booked`
    are those of this lease. Only measured segments are bound to the clock: inferred and simulated ones may lie
    anywhere.
    """
    violations = [v for i, segment in enumerate(segments) for v in _segment_violations(i, segment)]
    if not violations:
        violations = [
            *_excess_violations((*booked, *segments), held_until - held_from),
            *_overlap_violations(segments, tuple(earlier)),
        ]
    if violations:
        first = violations[0]
        raise InvalidInput(
            f"the time cannot be booked: {first.field} {first.description}",
            reason="TIME_NOT_PLAUSIBLE",
            violations=violations,
        )


def not_booked(segments: Iterable[TimeSegment], booked: Iterable[TimeSegment]) -> tuple[TimeSegment, ...]:
    """Segments without those that are booked already, the same to the microsecond: a log may be sent as a whole."""
    times = set(booked)
    return tuple(segment for segment in segments if segment not in times)


def summarize(entries: Iterable[LedgerEntry]) -> LedgerSummary:
    """Minutes by round; a round's `minutes` leave its held-out cases out, `minutes_total` holds both.

    A case counts in a round when a submission of it was booked there; time of a lease that was given up
    counts without a case.
    """
    booked = list(entries)
    rounds = tuple(
        _round_minutes(number, [entry for entry in booked if entry.round == number])
        for number in sorted({entry.round for entry in booked})
    )

    def total(source: TimeSource) -> float:
        return _minutes(entry for entry in booked if entry.segment.source == source)

    return LedgerSummary(
        minutes_total=_minutes(booked),
        minutes_held_out=_minutes(entry for entry in booked if entry.held_out),
        rounds=rounds,
        minutes_measured=total(TimeSource.MEASURED),
        minutes_inferred=total(TimeSource.INFERRED),
        minutes_simulated=total(TimeSource.SIMULATED),
    )


def calibration_factor(pairs: Iterable[tuple[float, float]]) -> float:
    """Real minutes per predicted minute, from (predicted, real) of the cases labelled so far.

    The median of the log ratios, so that one forgotten tool does not move it, shrunk towards 1 as if five
    cases had been predicted rightly. 1 without cases; between 0.1 and 10.
    """
    logs = [math.log(real / predicted) for predicted, real in pairs if predicted > 0 and real > 0]
    if not logs:
        return 1.0
    low, high = _FACTOR_RANGE
    return min(high, max(low, math.exp(median(logs) * len(logs) / (len(logs) + _PRIOR_CASES))))


def active_minutes(segments: Iterable[TimeSegment]) -> float:
    """Minutes of all segments together."""
    return math.fsum(segment.active_seconds for segment in segments) / 60.0


def _segment_violations(index: int, segment: TimeSegment) -> list[FieldViolation]:
    path = f"time_segments[{index}]"
    violations: list[FieldViolation] = []
    if not 0.0 <= segment.active_seconds <= MAX_SEGMENT_SECONDS:
        description = f"is {segment.active_seconds:g}: must be between 0 and 86400 (a day)"
        violations.append(FieldViolation(f"{path}.active_seconds", description))
    if segment.start_time.tzinfo is None:
        violations.append(FieldViolation(f"{path}.start_time", "needs a time zone"))
    elif not _FIRST_START <= segment.start_time <= _LAST_START:
        violations.append(FieldViolation(f"{path}.start_time", "is before the year 1900 or at the end of the calendar"))
    return violations


def _excess_violations(segments: Sequence[TimeSegment], held: timedelta) -> list[FieldViolation]:
    measured = math.fsum(s.active_seconds for s in segments if s.source == TimeSource.MEASURED)
    excess = measured - held.total_seconds()
    if excess <= 0:
        return []
    description = (
        f"hold {measured:.1f} measured seconds, but the case was held for {held.total_seconds():.1f}: "
        f"{excess:.1f} too many"
    )
    return [FieldViolation("time_segments", description)]


def _overlap_violations(segments: Sequence[TimeSegment], earlier: Sequence[TimeSegment]) -> list[FieldViolation]:
    """Measured segments of one annotator may touch, not overlap: a person works on one case at a time."""
    spans = [(_span(s), f"time_segments[{i}]") for i, s in enumerate(segments) if _is_measured(s)]
    spans += [(_span(s), "") for s in earlier if _is_measured(s)]
    violations: list[FieldViolation] = []
    furthest, owner = datetime.min.replace(tzinfo=UTC), ""
    for (start, end), name in sorted(spans):
        if furthest - start > CLOCK_TOLERANCE and (owner or name):
            other = owner if owner and name else "another case's segment"
            seconds = (min(furthest, end) - start).total_seconds()
            description = f"overlaps {other} of the same annotator by {seconds:.1f} seconds"
            violations.append(FieldViolation(name or owner, description))
        furthest, owner = max((furthest, owner), (end, name))
    return violations


def _span(segment: TimeSegment) -> tuple[datetime, datetime]:
    return segment.start_time, segment.start_time + timedelta(seconds=segment.active_seconds)


def _is_measured(segment: TimeSegment) -> bool:
    return segment.source == TimeSource.MEASURED and segment.active_seconds > 0


def _round_minutes(number: int, entries: Sequence[LedgerEntry]) -> RoundMinutes:
    held_out = [entry for entry in entries if entry.held_out]
    others = [entry for entry in entries if not entry.held_out]
    return RoundMinutes(
        round=number,
        cases=_cases(others),
        minutes=_minutes(others),
        held_out_cases=_cases(held_out),
        held_out_minutes=_minutes(held_out),
    )


def _cases(entries: Iterable[LedgerEntry]) -> int:
    return len({entry.case_id for entry in entries if entry.submission_id is not None})


def _minutes(entries: Iterable[LedgerEntry]) -> float:
    return active_minutes(entry.segment for entry in entries)
