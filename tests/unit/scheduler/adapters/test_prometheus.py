"""What Prometheus is told of the scheduler."""

from __future__ import annotations

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from rekindle.errors import LeaseLost
from rekindle_scheduler.adapters.prometheus import SchedulerMetrics, queue_metrics
from rekindle_scheduler.domain.ids import CaseId
from rekindle_scheduler.state import State
from rekindle_scheduler.usecases import leases, submissions
from rekindle_servicekit.database import make_engine
from rekindle_servicekit.metrics import StateCollector
from scheduler_ports import ALICE, BOB, START, Bench, label, measured


class Watched(Bench):
    """A bench whose store is watched."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.registry = CollectorRegistry()
        self.metrics = SchedulerMetrics(self.registry)
        engine = make_engine(f"sqlite:///{self.folder / 'bench.sqlite3'}")
        self.store = State(engine, self._clock, self.metrics.observe)
        self.registry.register(StateCollector(lambda: queue_metrics(self.store), every_s=0))

    def told(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(f"rekindle_{name}", labels)

    def lease(self, case_id: CaseId, who=ALICE):
        with self.store.write() as uow:
            return leases.lease_case(uow, who, self.project_id, case_id, None, 0)


@pytest.fixture
def bench(tmp_path: Path) -> Watched:
    return Watched(tmp_path)


def test_cases_are_counted_by_state_with_the_age_of_the_oldest(bench: Watched) -> None:
    """Two ready, one of them leased later; the age is that of the one which still waits."""
    first, _ = bench.annotating("a", "b")
    bench.register("c")
    bench.later(minutes=10)
    assert (2, 1, 0) == tuple(bench.told("queue_cases", state=s) for s in ("ready", "registered", "leased"))
    assert 600 == bench.told("queue_oldest_age_seconds")
    bench.lease(first)
    assert (1, 1, 1) == tuple(bench.told("queue_cases", state=s) for s in ("ready", "registered", "leased"))
    assert (1, 1) == (bench.told("leases_active"), bench.told("round_current", project=bench.project_id))


def test_labels_and_their_time_are_counted(bench: Watched) -> None:
    """One label with 90 measured seconds: counted once, its time once, in the bucket of up to two minutes."""
    first, _ = bench.annotating("a", "b")
    details = bench.lease(first)
    bench.later(minutes=5)
    with bench.store.write() as uow:
        handed_in = label(details, time_segments=(measured(START, 90.0),))
        submissions.submit(uow, ALICE, bench.project_id, *handed_in)
    assert 1 == bench.told("submissions_total", result="accepted")
    assert 90 == bench.told("annotator_seconds_total", source="measured")
    assert (0, 1) == tuple(bench.told("submission_duration_seconds_bucket", le=le) for le in ("60.0", "120.0"))


def test_what_is_rolled_back_is_not_counted(bench: Watched) -> None:
    """A transaction that fails after its label was written has counted nothing."""
    first, _ = bench.annotating("a", "b")
    details = bench.lease(first)
    bench.later(minutes=5)

    def fail_late() -> None:
        with bench.store.write() as uow:
            submissions.submit(uow, ALICE, bench.project_id, *label(details))
            raise RuntimeError("disk")

    with pytest.raises(RuntimeError, match="disk"):
        fail_late()
    assert bench.told("submissions_total", result="accepted") in (None, 0)


def test_expired_leases_and_fenced_writes_are_counted(bench: Watched) -> None:
    """A lease that ran out is counted when somebody else takes the case; a refused write when it is refused."""
    first, _ = bench.annotating("a", "b")
    bench.lease(first)
    bench.later(days=2)
    bench.lease(first, BOB)
    assert 1 == bench.told("lease_expirations_total")
    bench.metrics.call_refused("/rekindle.api.scheduler.v1.SchedulerService/Submit", LeaseLost("late"))
    assert 1 == bench.told("fenced_writes_total")
