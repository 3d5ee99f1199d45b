"""What annotators do all day costs no more with a million cases and labels than with ten."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from rekindle.errors import VersionConflict
from rekindle_scheduler.actions import predictions
from rekindle_scheduler.actions import rounds as rounds_actions
from rekindle_scheduler.actions.services import Services, read_view
from rekindle_scheduler.domain import steps
from rekindle_scheduler.domain.enums import LeaseState, ReviewState, RoundState
from rekindle_scheduler.domain.ids import ModelVersionId
from rekindle_scheduler.domain.policy import RoundSizes
from rekindle_scheduler.state import UnitOfWork
from rekindle_scheduler.state import predictions as sql_predictions
from rekindle_scheduler.usecases import leases, projects, rounds, sessions, submissions
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


def lease(uow: UnitOfWork, bench: Bench) -> None:
    leases.lease_next_case(uow, ALICE, bench.project_id, None)


def ask_in_vain(uow: UnitOfWork, bench: Bench) -> None:
    project = uow.projects.get(bench.project_id)
    leases.no_case(uow, project, 1)


@pytest.mark.parametrize("call", [lease, ask_in_vain])
def test_asking_for_a_case_reads_no_labels_and_no_whole_rounds(
    bench: Bench, call: Callable[[UnitOfWork, Bench], None]
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
        submissions.submit(uow, ALICE, bench.project_id, *label(details))
    assert not [each for each in seen if "rounds.record" in each]
    assert not [each for each in seen if "GROUP BY" in each]


def test_a_session_reads_the_predictions_of_labelled_cases_alone(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """One case of four is labelled: minutes are calibrated by its coarse label, and no other one's is read for that."""
    hand_in(bench, take(bench), time_segments=())
    read: list[Any] = []
    decode = sql_predictions.decode
    monkeypatch.setattr(sql_predictions, "decode", lambda kind, raw: read.append(kind) or decode(kind, raw))
    with bench.store.write() as uow:
        sessions.start_session(uow, ALICE, bench.project_id, sessions.SessionTerms(minutes=60.0))
    assert 1 == len(read)


def test_a_rounds_minutes_are_summed_where_they_lie(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """90 and 30 seconds of two labels are two minutes of the round, and no segment is read."""
    for seconds in (90.0, 30.0):
        details = take(bench)
        bench.later(minutes=10)
        hand_in(bench, details, time_segments=(measured(bench.now - (bench.now - START) / 2, seconds),))

    def unread(*_: Any, **__: Any) -> Any:
        raise AssertionError("the ledger was read as a whole")

    monkeypatch.setattr("rekindle_scheduler.state.ledger._entry", unread)
    with bench.store.read() as uow:
        found = rounds.list_rounds(uow, bench.project_id, after=-1, limit=10)
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
        stored = submissions.submit(uow, ALICE, bench.project_id, *label(details))
    assert ReviewState.DRAFT == stored.review_state


NEXT = ModelVersionId("model-2")


def selecting(bench: Bench, names: list[str]) -> Services:
    """A project whose round 1 is about to be selected from these cases, of which the next version predicted none."""
    bench.annotating(*names, sizing=RoundSizes(cases=(3,)))
    with bench.store.write() as uow:
        uow.rounds.update(replace(uow.rounds.get(bench.project_id, 1), state=RoundState.SELECTING))
        uow.projects.update(replace(uow.projects.get(bench.project_id), active_model_version_id=NEXT))
    nobody: Any = None
    return Services(state=bench.store, inference=nobody, trainer=nobody)


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Bench, Services, list[int]]:
    """Seven cases, two of which are written at a time; and how many rows each transaction writes."""
    bench, sizes = Bench(tmp_path), list[int]()
    services = selecting(bench, [f"v{number}" for number in range(7)])
    for module in (predictions, rounds_actions):
        monkeypatch.setattr(module, "AT_ONCE", 2)

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, many: bool) -> None:
        if "INSERT INTO predictions" in statement or "ordering_rank=" in statement:
            sizes.append(len(parameters) if many else 1)

    sa.event.listen(bench.store.engine, "before_cursor_execute", note)
    return bench, services, sizes


def test_predictions_are_queued_some_at_a_time(written: tuple[Bench, Services, list[int]]) -> None:
    """In between labels get their turn; the order over all of them is that of the plan."""
    bench, services, sizes = written
    view = read_view(bench.store, bench.project_id)
    assert predictions.enqueue(services, view, steps.EnqueuePredictions(model_version_id=NEXT))
    assert [2, 2, 2, 1] == sizes
    with bench.store.write() as uow:
        claimed = uow.predictions.claim(bench.project_id, NEXT, limit=9, until=bench.now)
        volumes = [uow.cases.get(bench.project_id, each.case_id).volume_id for each in claimed]
    assert [f"v{number}" for number in range(7)] == volumes
    assert not predictions.enqueue(services, view, steps.EnqueuePredictions(model_version_id=NEXT))


def test_a_selection_ranks_outside_of_its_transaction(written: tuple[Bench, Services, list[int]]) -> None:
    """Cases get their places two at a time, and three of them the round."""
    bench, services, sizes = written
    bench_view = read_view(bench.store, bench.project_id)
    rounds_actions.open_selection(services, bench_view, steps.OpenSelection(round=1))
    assert [2, 2, 2, 1] == sizes
    with bench.store.read() as uow:
        opened = uow.rounds.get(bench.project_id, 1)
    assert (RoundState.ANNOTATING, 3) == (opened.state, len(opened.selected_case_ids))


def test_a_selection_goes_by_the_policy_as_it_is(
    written: tuple[Bench, Services, list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A policy that is changed while cases are ranked makes the selection begin anew."""
    bench, services, _ = written

    def change_policy(*_: Any) -> None:
        with bench.store.write() as uow:
            project = uow.projects.get(bench.project_id)
            policy = replace(project.policy, sizing=RoundSizes(cases=(1,)))
            projects.update_policy(uow, bench.project_id, policy, project.policy_version)

    view = read_view(bench.store, bench.project_id)
    monkeypatch.setattr(rounds_actions, "_write_ordering", change_policy)
    with pytest.raises(VersionConflict):
        rounds_actions.open_selection(services, view, steps.OpenSelection(round=1))
    monkeypatch.undo()
    rounds_actions.open_selection(services, read_view(bench.store, bench.project_id), steps.OpenSelection(round=1))
    with bench.store.read() as uow:
        assert 1 == len(uow.rounds.get(bench.project_id, 1).selected_case_ids)
