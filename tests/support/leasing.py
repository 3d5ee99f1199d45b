"""Many annotators at once, each with a connection of their own."""

from __future__ import annotations

import threading
from collections.abc import Callable

from rekindle_scheduler.domain.ids import CaseId, ProjectId
from rekindle_scheduler.state import State
from rekindle_scheduler.usecases.leases import LeaseDetails, lease_next_case
from rekindle_servicekit.principal import Principal


def lease_all(store: State, project_id: ProjectId, *, people: int, cases: int) -> list[CaseId]:
    """Annotators lease until there is nothing left or so many cases are leased; all that they got, with repeats."""
    taken: list[CaseId] = []

    def work(name: str) -> None:
        who = Principal(issuer="test", subject=name, display_name=name)
        while len(taken) < cases:
            with store.write() as uow:
                leased = lease_next_case(uow, who, project_id, None)
            if not isinstance(leased, LeaseDetails):
                return
            taken.append(leased.case.case_id)

    together([lambda name=f"annotator-{number}": work(name) for number in range(people)])
    return taken


def together(jobs: list[Callable[[], object]]) -> None:
    """Each in a thread; the first error of any of them is raised once all have ended."""
    errors: list[BaseException] = []
    barrier = threading.Barrier(len(jobs))

    def run(job: Callable[[], object]) -> None:
        barrier.wait()
        try:
            job()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=[job]) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
