"""Who waits for whom when a case is leased, marked and erased at once, on every database that the scheduler runs on."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from rekindle_scheduler.domain.enums import CaseMark, CaseState, LeaseState
from rekindle_scheduler.domain.ids import CaseId
from rekindle_scheduler.state import open_state
from rekindle_scheduler.usecases import cases, leases, purges
from scheduler_labels import case_of
from scheduler_ports import ALICE, Bench
from servers.fixtures import MakeDatabase


@pytest.fixture
def bench(make_database: MakeDatabase) -> Iterator[Bench]:
    bench = Bench(url=make_database(lambda url: open_state(url).close()))
    yield bench
    bench.store.close()


@pytest.fixture
def case_id(bench: Bench) -> CaseId:
    return bench.annotating("v1", "v2")[0]


def test_a_case_is_leased_while_somebody_waits_for_it(bench: Bench, case_id: CaseId) -> None:
    """Whoever marks it holds the project and waits for the case; neither waits for the other in a circle."""
    failed: list[Exception] = []

    def mark() -> None:
        try:
            with bench.store.write() as uow:
                cases.mark_case(uow, bench.project_id, case_id, CaseMark.HARD)
        except Exception as error:
            failed.append(error)

    thread = threading.Thread(target=mark)
    with bench.store.write() as uow:
        uow.cases.lock(bench.project_id, case_id)
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        leases.lease_case(uow, ALICE, bench.project_id, case_id, None, 0)
    thread.join(30)
    assert [] == failed
    case = case_of(bench, case_id)
    assert (CaseState.LEASED, CaseMark.HARD) == (case.state, case.mark)


def test_a_lease_that_is_given_while_its_case_is_erased_ends(bench: Bench, case_id: CaseId) -> None:
    """It is seen by whoever erases, who waits for the case."""

    def erase() -> None:
        with bench.store.write() as uow:
            patient = purges.PurgeTarget(case_id=case_id)
            purges.purge_group(uow, bench.project_id, patient, reason="asked for")

    thread = threading.Thread(target=erase)
    with bench.store.write() as uow:
        lease = leases.lease_case(uow, ALICE, bench.project_id, case_id, None, 0).lease
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
    thread.join(30)
    with bench.store.read() as uow:
        assert LeaseState.RELEASED is uow.leases.get(bench.project_id, lease.lease_id).state
