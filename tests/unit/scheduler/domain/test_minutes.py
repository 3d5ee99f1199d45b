"""The ledger's rules and sums."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rekindle.errors import InvalidInput
from rekindle.vocabulary import TimeSource
from rekindle_scheduler.domain.minutes import calibration_factor, check_segments, summarize
from rekindle_scheduler.domain.records import LedgerEntry

MEASURED, INFERRED, SIMULATED = TimeSource.MEASURED, TimeSource.INFERRED, TimeSource.SIMULATED


def check(make: SimpleNamespace, segments, earlier=(), held_minutes: float = 60.0) -> None:
    end = make.noon + timedelta(minutes=held_minutes)
    check_segments(segments, held_from=make.noon, held_until=end, earlier=earlier)


def refused(make: SimpleNamespace, segments, earlier=()) -> list[tuple[str, str]]:
    with pytest.raises(InvalidInput) as caught:
        check(make, segments, earlier)
    return [(v.field, v.description) for v in caught.value.violations]


@pytest.mark.parametrize("seconds", [-1.0, math.nan, math.inf, 86401.0])
@pytest.mark.parametrize("source", list(TimeSource))
def test_impossible_durations_are_refused(make: SimpleNamespace, seconds: float, source: TimeSource):
    """Negative, not a number, endless or above a day: refused, wherever the time comes from."""
    segments = [make.segment(0, 1.0), make.segment(1, seconds, source)]
    assert ["time_segments[1].active_seconds"] == [field for field, _ in refused(make, segments)]


@pytest.mark.parametrize("source", list(TimeSource))
@pytest.mark.parametrize("start", [datetime.min, datetime(1899, 12, 31), datetime(9999, 12, 31), datetime.max])
def test_time_at_the_ends_of_the_calendar_is_refused(make: SimpleNamespace, source: TimeSource, start: datetime):
    """What would lie outside of it with its length, or in another time zone, names its start."""
    segment = replace(make.segment(0, 60.0, source), start_time=start.replace(tzinfo=UTC))
    assert ["time_segments[0].start_time"] == [field for field, _ in refused(make, [segment])]


def test_measured_time_fits_the_time_held(make: SimpleNamespace):
    """An hour's lease holds an hour of measured work, split anyhow."""
    check(make, [make.segment(0, 1800.0), make.segment(30, 1800.0)])


def test_excess_is_named(make: SimpleNamespace):
    """Work that sums to more than the time held is refused with the excess."""
    [(field, description)] = refused(make, [make.segment(0, 1800.0), make.segment(30, 1830.0)])
    assert "time_segments" == field
    assert "30.0 too many" in description


@pytest.mark.parametrize("source", [INFERRED, SIMULATED])
def test_time_that_was_not_measured_is_not_bound_to_the_clock(make: SimpleNamespace, source: TimeSource):
    """A simulated annotator's 14 minutes may be sent within a second, and two at the same time."""
    segment = make.segment(0, 14 * 60.0, source)
    check(make, [segment, segment], earlier=[segment], held_minutes=0.01)


@pytest.mark.parametrize(
    ("start", "seconds", "earlier"),
    [
        (5, 600, [(0, 600)]),
        (0, 600, [(5, 60)]),
        (5, 60, [(0, 1200)]),
        (5, 60, [(0, 1200), (1, 2)]),
    ],
)
def test_two_things_at_once_are_refused(make: SimpleNamespace, start, seconds, earlier):
    """A measured segment may not overlap another case's of the same annotator, in whatever way."""
    booked = [make.segment(s, d) for s, d in earlier]
    [(field, description)] = refused(make, [make.segment(start, seconds)], booked)
    assert "time_segments[0]" == field
    assert "another case's segment" in description


def test_overlap_within_one_submission_is_refused(make: SimpleNamespace):
    """Reading and editing at the same time would count minutes twice."""
    [(field, description)] = refused(make, [make.segment(5, 600), make.segment(0, 600)])
    assert "time_segments[0]" == field
    assert "time_segments[1]" in description
    assert "300.0 seconds" in description


def test_touching_segments_pass(make: SimpleNamespace):
    """One segment may begin when another ends, or within the clock's tolerance."""
    check(make, [make.segment(10, 600), make.segment(20, 60)], earlier=[make.segment(0, 600.9)])


def test_naive_times_are_refused(make: SimpleNamespace):
    """A start without time zone could be anywhere."""
    segment = make.segment(0, 1.0, start_time=make.noon.replace(tzinfo=None))
    assert [("time_segments[0].start_time", "needs a time zone")] == refused(make, [segment])


def entry(make: SimpleNamespace, case: str, number: int, minutes: float, **changes) -> LedgerEntry:
    values = {
        "project_id": make.project_id,
        "case_id": case,
        "annotator_id": "ann",
        "round": number,
        "held_out": False,
        "coarse_model_version_id": "v1",
        "segment": make.segment(0, minutes * 60, changes.pop("source", MEASURED)),
        "submission_id": f"s-{case}",
    }
    return LedgerEntry(**(values | changes))


def test_summary_by_hand(make: SimpleNamespace):
    """Rounds, held-out cases and sources of a small ledger, added up by hand."""
    summary = summarize(
        [
            entry(make, "a", 1, 10.0),
            entry(make, "a", 1, 4.0, source=INFERRED),
            entry(make, "b", 1, 6.0, held_out=True),
            entry(make, "c", 1, 2.0, submission_id=None, lease_id="l1"),
            entry(make, "c", 2, 5.0, source=SIMULATED),
        ]
    )
    assert (27.0, 6.0) == (summary.minutes_total, summary.minutes_held_out)
    by_source = (summary.minutes_measured, summary.minutes_inferred, summary.minutes_simulated)
    assert (18.0, 4.0, 5.0) == by_source
    rows = [(r.round, r.cases, r.minutes, r.held_out_cases, r.held_out_minutes) for r in summary.rounds]
    assert [(1, 1, 16.0, 1, 6.0), (2, 1, 5.0, 0, 0.0)] == rows


def test_empty_ledger():
    """No entry, no minutes, no round."""
    summary = summarize([])
    assert (0.0, ()) == (summary.minutes_total, summary.rounds)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ([], 1.0),
        ([(5.0, 0.0), (0.0, 5.0)], 1.0),
        ([(5.0, 10.0)], 2 ** (1 / 6)),
        ([(5.0, 10.0)] * 5, 2**0.5),
        ([(5.0, 10.0)] * 95, 2**0.95),
        ([(4.0, 4.0), (4.0, 4.0), (4.0, 400.0)], 1.0),
        ([(1.0, 1e9)] * 100, 10.0),
    ],
)
def test_calibration(pairs, expected: float):
    """Twice the predicted minutes gives 2 ** (n / (n + 5)); one outlier among three does not count."""
    assert calibration_factor(pairs) == pytest.approx(expected)


@given(st.lists(st.tuples(st.floats(0.1, 100), st.floats(0.1, 100)), max_size=40))
def test_calibration_lies_between_one_and_the_extremes(pairs):
    """A factor never overshoots what was seen."""
    ratios = [real / predicted for predicted, real in pairs] + [1.0]
    assert min(ratios) * 0.999 <= calibration_factor(pairs) <= max(ratios) * 1.001
