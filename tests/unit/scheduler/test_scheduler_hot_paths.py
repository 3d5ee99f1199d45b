"""What annotators do all day costs no more with a million cases and labels than with ten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from rekindle_scheduler.adapters.sql import predictions as sql_predictions
from rekindle_scheduler.adapters.sql.store import SqlUnitOfWork
from rekindle_scheduler.domain.words import LeaseState, ReviewState
from rekindle_scheduler.usecases import leases, rounds, sessions, submissions
from scheduler_labels import hand_in, take
from scheduler_ports import ALICE, START, Bench, label, measured


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    bench.annotating("v1", "v2", "v3", "v4")
    return bench


@contextmanager
def statements(bench: Bench) -> Iterator[list[str]]:
    """What the database is asked."""
    seen: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        seen.append(" ".join(statement.split()))

    sa.event.listen(bench.store.engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(bench.store.engine, "before_cursor_execute", note)


def lease(uow: SqlUnitOfWork, bench: Bench) -> None:
    leases.lease_next_case(uow, ALICE, bench.project_id, None)


def ask_in_vain(uow: SqlUnitOfWork, bench: Bench) -> None:
    project = uow.projects.get(bench.project_id)
    leases.no_case(uow, project, 1)


@pytest.mark.parametrize("call", [lease, ask_in_vain])
def test_asking_for_a_case_reads_no_labels_and_no_whole_rounds(
    bench: Bench, call: Callable[[SqlUnitOfWork, Bench], None]
) -> None:
    """Of the rounds the newest one's state, of the submissions nothing, and no count over all cases."""
    with statements(bench) as seen, bench.store.write() as uow:
        call(uow, bench)
    assert not [each for each in seen if "submissions" in each.split(" FROM ")[-1]]
    assert not [each for each in seen if "rounds.record" in each]
    assert not [each for each in seen if "sum(CASE" in each]


def test_handing_in_reads_no_whole_rounds(bench: Bench) -> None:
    """A label asks for the newest round's state alone."""
    details = take(bench)
    with statements(bench) as seen, bench.store.write() as uow:
        submissions.submit(uow, ALICE, bench.project_id, label(details))
    assert not [each for each in seen if "rounds.record" in each]
    assert not [each for each in seen if "GROUP BY" in each]


def test_a_session_reads_the_predictions_of_labelled_cases_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One case of four is labelled: minutes are calibrated by its coarse label, and no other one's is read for that."""
    hand_in(bench, take(bench), time_segments=())
    read: list[Any] = []
    decode = sql_predictions.decode
    monkeypatch.setattr(sql_predictions, "decode", lambda kind, raw: read.append(kind) or decode(kind, raw))
    with bench.store.write() as uow:
        sessions.start_session(uow, ALICE, bench.project_id, sessions.SessionWish(minutes=60.0))
    assert 1 == len(read)


def test_a_rounds_minutes_are_summed_where_they_lie(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """90 and 30 seconds of two labels are two minutes of the round, and no segment is read."""
    for seconds in (90.0, 30.0):
        details = take(bench)
        bench.later(minutes=10)
        hand_in(bench, details, time_segments=(measured(bench.now - (bench.now - START) / 2, seconds),))

    def unread(*_: Any, **__: Any) -> Any:
        raise AssertionError("the ledger was read as a whole")

    monkeypatch.setattr("rekindle_scheduler.adapters.sql.ledger._entry", unread)
    with bench.store.read() as uow:
        found = rounds.list_rounds(uow, ALICE, bench.project_id, after=-1, limit=10)
    assert [(0, 0.0), (1, pytest.approx(2.0))] == [(each.round.number, each.minutes) for each in found]


def test_a_label_is_judged_by_its_lease_as_it_is_under_the_lock(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that another call gives back, before the lock is ours, makes a draft of the label, not a label."""
    details = take(bench)

    with bench.store.write() as uow:
        lock = uow.cases.lock

        def lock_after_another(*which: Any) -> Any:
            uow.leases.end(details.lease, LeaseState.RELEASED, reason="meanwhile")
            return lock(*which)

        monkeypatch.setattr(uow.cases, "lock", lock_after_another)
        stored = submissions.submit(uow, ALICE, bench.project_id, label(details))
    assert ReviewState.DRAFT == stored.review_state
