"""Sessions: as many cases as fit the minutes, in one step, given back in one."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from rekindle.errors import InvalidInput, NotFound, PermissionDenied
from rekindle_scheduler.domain.enums import LeaseState, ReviewState, RoundState
from rekindle_scheduler.domain.ids import LeaseId, SessionId
from rekindle_scheduler.usecases import leases, sessions
from scheduler_labels import hand_in, take, take_up
from scheduler_ports import ALICE, BOB, START, Bench, coarse_label, measured, round_of

#: Predicted minutes of the cases, in the round's order.
MINUTES = (4.0, 5.0, 6.0, 2.0)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    case_ids = bench.annotating(*(f"v{index}" for index in range(len(MINUTES))))
    with bench.store.write() as uow:
        for case_id, minutes in zip(case_ids, MINUTES, strict=True):
            uow.cases.set_coarse_label(case_id, replace(coarse_label(case_id), predicted_minutes=minutes))
    return bench


def start(bench: Bench, minutes: float, principal: Any = ALICE, **wish: Any) -> Any:
    with bench.store.write() as uow:
        wished = sessions.SessionTerms(minutes=minutes, **wish)
        return sessions.start_session(uow, principal, bench.project_id, wished)


def end(bench: Bench, details: Any, held: dict[LeaseId, int] | None = None, principal: Any = ALICE) -> Any:
    with bench.store.write() as uow:
        return sessions.end_session(uow, principal, bench.project_id, details.session.session_id, held or {})


@pytest.mark.parametrize(
    ("minutes", "max_cases", "expected"),
    [
        (1.0, 0, (4.0,)),
        (8.9, 0, (4.0,)),
        (9.0, 0, (4.0, 5.0)),
        (12.0, 0, (4.0, 5.0)),
        (17.0, 0, MINUTES),
        (1440.0, 3, (4.0, 5.0, 6.0)),
    ],
)
def test_a_session_takes_the_first_cases_that_fit(
    bench: Bench, minutes: float, max_cases: int, expected: tuple[float, ...]
) -> None:
    """In the round's order, up to the first that does not fit; one at least, and no more than asked for."""
    details = start(bench, minutes, max_cases=max_cases)
    assert list(expected) == [each.case.coarse_label.predicted_minutes for each in details.leases]
    assert sum(expected) == pytest.approx(details.session.predicted_minutes)
    assert {details.session.session_id} == {each.lease.session_id for each in details.leases}
    with bench.store.read() as uow:
        assert len(expected) == len(leases.my_leases(uow, ALICE, bench.project_id))
        assert details == sessions.get_session(uow, ALICE, bench.project_id, details.session.session_id)


def test_minutes_are_calibrated_by_those_of_the_project(bench: Bench) -> None:
    """A label took 32 minutes where 8 were predicted: factor 4 ** (1/6), and of 5 + 6 + 2 minutes 15 hold two."""
    first = take(bench)
    bench.later(minutes=40)
    hand_in(bench, first, time_segments=(measured(START, 32 * 60.0),))
    factor = 4 ** (1 / 6)
    assert 13.0 * factor > 15.0 > 11.0 * factor
    details = start(bench, 15.0)
    assert (2, 11.0 * factor) == (len(details.leases), pytest.approx(details.session.predicted_minutes))


def test_leases_of_a_session_last_as_long_as_it_needs(bench: Bench) -> None:
    """The policy's four hours, or the session's minutes where they are more; a week where it is detached."""
    ends = [
        start(bench, 1.0).session.expire_time,
        start(bench, 600.0, max_cases=1).session.expire_time,
        start(bench, 1.0, detached=True).session.expire_time,
        start(bench, 1.0, detached=True, duration=timedelta(days=30)).session.expire_time,
    ]
    assert [timedelta(hours=4), timedelta(hours=10), timedelta(days=7), timedelta(days=30)] == [
        each - START for each in ends
    ]


@pytest.mark.parametrize(
    ("wish", "field"),
    [
        ({"minutes": -5.0}, "minutes"),
        ({"minutes": 0.0}, "minutes"),
        ({"minutes": 1441.0}, "minutes"),
        ({"minutes": float("nan")}, "minutes"),
        ({"minutes": float("inf")}, "minutes"),
        ({"minutes": 5.0, "max_cases": -1}, "max_cases"),
        ({"minutes": 5.0, "max_cases": 201}, "max_cases"),
        ({"minutes": 5.0, "duration": timedelta(days=31)}, "duration"),
        ({"minutes": 5.0, "tool": "x" * 101}, "tool"),
    ],
)
def test_a_session_that_makes_no_sense_is_refused(bench: Bench, wish: dict[str, Any], field: str) -> None:
    """The field is named, and no case is held."""
    with pytest.raises(InvalidInput) as refused:
        start(bench, **wish)
    assert field == refused.value.violations[0].field
    with bench.store.read() as uow:
        assert [] == leases.my_leases(uow, ALICE, bench.project_id)


def test_without_a_free_case_it_says_why(bench: Bench) -> None:
    """As `LeaseNextCase` does, and no empty session is left behind."""
    start(bench, 1440.0)
    outcome = start(bench, 30.0, BOB)
    assert isinstance(outcome, leases.NoCase)
    assert leases.NoCaseReason.ROUND_TAKEN == outcome.reason
    with bench.store.read() as uow:
        place = (START - timedelta(days=1), "")
        assert [] == sessions.my_sessions(uow, BOB, bench.project_id, include_ended=True, after=place, limit=9)


def test_ending_gives_back_what_is_left(bench: Bench) -> None:
    """What was handed in stays, the rest is free for Bob; ending it again changes nothing."""
    details = start(bench, 15.0)
    first, second, _ = details.leases
    hand_in(bench, first)
    ended = end(bench, details)
    states = [LeaseState.SUBMITTED, LeaseState.RELEASED, LeaseState.RELEASED]
    assert states == [each.lease.state for each in ended.leases]
    assert START == ended.session.end_time
    assert second.case.case_id == take(bench, BOB).case.case_id
    bench.later(minutes=5)
    assert ended.session == end(bench, details).session
    with bench.store.read() as uow:
        mine = {"after": (START - timedelta(days=1), ""), "limit": 9}
        assert [] == sessions.my_sessions(uow, ALICE, bench.project_id, include_ended=False, **mine)
        assert 1 == len(sessions.my_sessions(uow, ALICE, bench.project_id, include_ended=True, **mine))


def test_ending_leaves_alone_what_another_tool_has_taken_up(bench: Bench) -> None:
    """A tool that names the tokens it holds cannot release a lease that went on elsewhere."""
    details = start(bench, 9.0)
    first, second = details.leases
    take_up(bench, first)
    ended = end(bench, details, {each.lease.lease_id: each.lease.fencing_token for each in details.leases})
    assert [LeaseState.LIVE, LeaseState.RELEASED] == [each.lease.state for each in ended.leases]
    assert second.case.case_id == take(bench, BOB).case.case_id


def test_a_session_is_its_annotators(bench: Bench) -> None:
    """Nobody else looks at it or ends it."""
    details = start(bench, 9.0)
    with pytest.raises(PermissionDenied):
        end(bench, details, principal=BOB)
    with bench.store.read() as uow:
        with pytest.raises(PermissionDenied):
            sessions.get_session(uow, BOB, bench.project_id, details.session.session_id)
        with pytest.raises(NotFound):
            sessions.get_session(uow, ALICE, bench.project_id, SessionId("nobody"))


def test_a_detached_label_counts_for_the_round_that_is_open_when_it_comes(bench: Bench) -> None:
    """Handed in after six days, when round 1 is closed and round 2 takes labels; the time away is not lost."""
    details = start(bench, 9.0, detached=True)
    with bench.store.write() as uow:
        uow.rounds.get(bench.project_id, 1)
        uow.rounds.update(round_of(bench.project_id, 1, RoundState.CLOSED))
        uow.rounds.add(round_of(bench.project_id, 2, RoundState.ANNOTATING))
    bench.later(days=6)
    segment = measured(START + timedelta(days=2), 300.0)
    stored = hand_in(bench, details.leases[0], time_segments=(segment,))
    assert (ReviewState.ACCEPTED, 2, (segment,)) == (stored.review_state, stored.round, stored.time_segments)
