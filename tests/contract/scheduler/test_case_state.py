"""What the scheduler's state promises of cases: the next one, leases, pages, held-out ones."""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from rekindle.errors import NotFound
from rekindle_scheduler.domain.enums import CaseMark, CaseState, LeaseState
from rekindle_scheduler.domain.ids import CaseId, ModelVersionId, ProjectId, SubmissionId
from rekindle_scheduler.state import CaseFilter, State, open_state
from rekindle_scheduler.usecases import leases
from rekindle_scheduler.usecases.purges import PurgeTarget, purge_group
from rekindle_servicekit.principal import Principal
from scheduler_rows import ALICE, BOB, PROJECT, Clock, add_cases, add_project, coarse_label, lease_next, task, volume


def test_a_case_of_another_project_is_not_found(store: State) -> None:
    """Ids are looked up inside their project only."""
    (case_id,) = add_cases(store, 1)
    other = ProjectId("00000000-0000-4000-8000-000000000000")
    with store.read() as uow, pytest.raises(NotFound):
        uow.cases.get(other, case_id)


def test_the_next_case_is_the_first_free_one(store: State) -> None:
    """Leased, labelled and put-off cases are passed over, and so are those without a coarse label."""
    first, second, third, fourth = add_cases(store, 4)
    with store.write() as uow:
        assert first == lease_next(uow).case.case_id
        uow.cases.set_mark(second, CaseMark.PUT_OFF)
        assert third == lease_next(uow).case.case_id
        assert fourth == lease_next(uow).case.case_id
        assert uow.cases.next_in_round(PROJECT, 1) is None


def test_the_next_case_is_found_by_an_index(tmp_path: Path, clock: Clock) -> None:
    """No scan over the project's cases, and no sort; PostgreSQL, which plans by statistics, is asked elsewhere."""
    store = open_state(f"sqlite:///{tmp_path / 'state.sqlite3'}", clock)
    add_project(store)
    add_cases(store, 3)
    with store.write() as uow:
        connection = uow.cases._connection
        statements: list[str] = []
        sa.event.listen(connection, "before_cursor_execute", lambda *a: statements.append(a[2]))
        uow.cases.next_in_round(PROJECT, 1)
        plan = connection.exec_driver_sql(
            "EXPLAIN QUERY PLAN " + statements[0].replace("?", "1").split("LIMIT")[0] + " LIMIT 1"
        ).all()
    store.close()
    assert any("USING INDEX ix_cases_" in str(row) for row in plan)
    assert not any("SCAN" in str(row) or "TEMP B-TREE" in str(row) for row in plan)


def test_concurrent_callers_never_get_the_same_case(store: State) -> None:
    """Eight threads lease eight cases: eight different ones."""
    add_cases(store, 8)
    taken: list[CaseId] = []

    def take(name: str) -> None:
        with store.write() as uow:
            outcome = leases.lease_next_case(
                uow, Principal(issuer="test", subject=name, display_name=name), PROJECT, None
            )
            assert isinstance(outcome, leases.LeaseDetails)
            taken.append(outcome.case.case_id)

    threads = [threading.Thread(target=take, args=(f"annotator {index}",)) for index in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 8 == len(set(taken))


def test_erasing_waits_for_whoever_is_given_the_case_at_the_moment(store: State) -> None:
    """A lease that is granted while a purge begins is seen by it, and ends with it."""
    (case_id,) = add_cases(store, 1)
    with store.write() as uow:
        grouped = uow.cases.add(PROJECT, volume("grouped"), "group", held_out=False).case_id
        uow.cases.set_coarse_label(grouped, coarse_label("model-1", grouped))

    def purge(target: PurgeTarget) -> None:
        with store.write() as uow:
            purge_group(uow, PROJECT, target, reason="asked for")

    for case, patient in ((case_id, PurgeTarget(case_id=case_id)), (grouped, PurgeTarget(group_key="group"))):
        eraser = threading.Thread(target=purge, args=(patient,))
        with store.write() as uow:
            granted = leases.lease_case(uow, ALICE, PROJECT, case, None, 0)
            eraser.start()
            eraser.join(0.3)
        eraser.join()
        with store.read() as uow:
            assert LeaseState.RELEASED == uow.leases.get(PROJECT, granted.lease.lease_id).state
            assert CaseState.PURGED == uow.cases.get(PROJECT, case).state


def test_an_expired_lease_frees_its_case_under_a_greater_token(store: State, clock: Clock) -> None:
    """The next lease of the case has the next fencing token, and the old one shows as expired."""
    add_cases(store, 1)
    with store.write() as uow:
        old = lease_next(uow, ALICE)
    clock.now += timedelta(hours=4)
    with store.write() as uow:
        new = lease_next(uow, BOB)
        assert (old.lease.fencing_token + 1, old.case.case_id) == (new.lease.fencing_token, new.case.case_id)
        assert "expired" == uow.leases.get(PROJECT, old.lease.lease_id).state
        assert [] == leases.my_leases(uow, ALICE, PROJECT)


def test_very_many_cases_are_held_out_at_once(store: State) -> None:
    """70,000 ids are more than one statement of PostgreSQL takes; those that are none change nothing."""
    first, second = add_cases(store, 2)
    others = [CaseId(f"no case {number}") for number in range(70_000)]
    with store.write() as uow:
        uow.cases.set_held_out([first, *others])
        assert (True, False) == tuple(uow.cases.get(PROJECT, each).held_out for each in (first, second))


def test_open_cases_are_found_without_counting_all(store: State) -> None:
    """Leased ones are open, those that are put off or labelled are not; of a round only its own count."""
    first, second, third = add_cases(store, 3)
    with store.write() as uow:
        leases.lease_case(uow, ALICE, PROJECT, first, None, 0)
        uow.cases.set_mark(second, CaseMark.PUT_OFF)
        assert (2, 0) == tuple(uow.tallies.open_in_round(PROJECT, number) for number in (1, 2))
        assert 2 == uow.tallies.cases(PROJECT, 1).round_open
        uow.cases.set_mark(third, CaseMark.PUT_OFF)
        assert uow.tallies.has_open(PROJECT)
        uow.cases.set_submission(first, SubmissionId("submission"))
        assert not uow.tallies.has_open(PROJECT)


def test_cases_are_read_a_page_at_a_time(store: State, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each once, as registered, however many pages they fill; without those that are labelled or have a task."""
    monkeypatch.setattr("rekindle_scheduler.state.cases._AT_ONCE", 2)
    first, second, third, fourth, fifth = add_cases(store, 5)
    with store.write() as uow:
        uow.cases.set_submission(second, SubmissionId("submission"))
        uow.predictions.enqueue([task(fourth, 0)])
    with store.read() as uow:
        unlabelled = [case.case_id for case in uow.cases.unlabelled(PROJECT)]
        waiting = [case.case_id for case in uow.cases.without_task(PROJECT, ModelVersionId("model-2"))]
        labelled = [case.case_id for case in uow.cases.labelled(PROJECT)]
    assert [first, third, fourth, fifth] == unlabelled
    assert [first, third, fifth] == waiting
    assert [second] == labelled


def test_held_out_cases_are_found_labelled_or_not(store: State) -> None:
    """And no others."""
    first, second, _ = add_cases(store, 3)
    with store.write() as uow:
        uow.cases.set_held_out([first, second])
        uow.cases.set_submission(second, SubmissionId("submission"))
        assert [first, second] == [case.case_id for case in uow.cases.held_out(PROJECT)]


def test_places_are_kept_from_where_the_last_ones_ended(store: State) -> None:
    """Written in two parts, listed as one order; what stays as it is is not written."""
    first, second, third = add_cases(store, 3)
    with store.write() as uow:
        uow.cases.set_ordering([third, first], first=0)
        uow.cases.set_ordering([second], first=2)
        listed = uow.cases.page(PROJECT, CaseFilter(), ranked=True, after=(-1, -1), limit=9)
    assert [third, first, second] == [case.case_id for _, case in listed]


def test_the_states_of_the_filter_are_those_of_the_cases(store: State) -> None:
    """Each filter lists exactly the cases that show its state."""
    first, second, _third, fourth = add_cases(store, 4)
    add = volume("unpredicted")
    with store.write() as uow:
        uow.cases.add(PROJECT, add, "", held_out=True)
        lease_next(uow)
        uow.cases.set_mark(second, CaseMark.PUT_OFF)
        uow.cases._connection.exec_driver_sql("UPDATE cases SET submission_id = 's' WHERE volume_id = 'v2'")
        uow.cases.set_pending(fourth, SubmissionId("waiting"))
        shown = {case.case_id: case.state for case in uow.cases.all(PROJECT)}
        assert CaseState.LEASED == shown[first]
        for state in CaseState:
            listed = uow.cases.page(
                PROJECT, CaseFilter(states=frozenset({state})), ranked=False, after=(-1, -1), limit=10
            )
            assert {i for i, s in shown.items() if s == state} == {case.case_id for _, case in listed}
        assert set(CaseState) == set(shown.values()) | {CaseState.READY, CaseState.PURGED}
