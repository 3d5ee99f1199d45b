"""What Prometheus is told of the scheduler: what its transactions did, and how many cases are where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from rekindle.errors import LeaseLost, RekindleError

from rekindle_scheduler.domain.words import CaseState
from rekindle_scheduler.ports import Noted, Store

#: Kinds of events that say what became of a label.
_RESULTS: Final = {
    "case-submitted": "accepted",
    "review-requested": "pending",
    "draft-kept": "draft",
    "label-accepted": "accepted",
    "label-rejected": "rejected",
    "label-withdrawn": "withdrawn",
}
_MINUTES: Final = (30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
_HOURS: Final = (60, 600, 3600, 4 * 3600, 24 * 3600, 7 * 24 * 3600)


class SchedulerMetrics:
    """Counters of this process; Prometheus adds those of several up."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._submissions = Counter(
            "rekindle_submissions", "Labels by what became of them", ["result"], registry=registry
        )
        self._duration = Histogram(
            "rekindle_submission_duration_seconds",
            "Active time booked for a label that was handed in",
            buckets=_MINUTES,
            registry=registry,
        )
        self._seconds = Counter(
            "rekindle_annotator_seconds", "Active time booked, by how it was obtained", ["source"], registry=registry
        )
        self._expirations = Counter(
            "rekindle_lease_expirations", "Leases found run out when their case was taken anew", registry=registry
        )
        self._fenced = Counter("rekindle_fenced_writes", "Writes refused for a lost lease", registry=registry)
        self._transitions = Counter("rekindle_round_transitions", "Steps of rounds", ["to"], registry=registry)
        self._rounds = Histogram(
            "rekindle_round_duration_seconds", "From a round's opening to its close", buckets=_HOURS, registry=registry
        )

    def observe(self, noted: Sequence[Noted]) -> None:
        """Count what one committed transaction did."""
        for note in noted:
            if note.what in _RESULTS:
                self._submissions.labels(_RESULTS[note.what]).inc()
            elif note.what.startswith("round-"):
                self._transitions.labels(note.what.removeprefix("round-")).inc()
            elif note.what == "time-booked":
                self._seconds.labels(note.label).inc(note.amount)
            elif note.what == "lease-expired":
                self._expirations.inc(note.amount)
            self._observe_duration(note)

    def call_refused(self, _method: str, error: RekindleError) -> None:
        """Count a write that came with an old token."""
        if isinstance(error, LeaseLost):
            self._fenced.inc()

    def _observe_duration(self, note: Noted) -> None:
        histogram = {"round-closed": self._rounds, "case-submitted": self._duration}.get(note.what)
        if histogram is not None and note.seconds is not None:
            histogram.observe(note.seconds)


def queue_metrics(store: Store) -> Iterable[Metric]:
    """Cases by state over all projects, the oldest that waits, live leases, the round of each running project."""
    with store.read() as uow:
        overview, now = uow.tallies.overview(), uow.now
    cases = GaugeMetricFamily("rekindle_queue_cases", "Cases by state", labels=["state"])
    for state in CaseState:
        cases.add_metric([state.value], overview.cases.get(state, 0))
    oldest = overview.oldest_ready
    age = GaugeMetricFamily(
        "rekindle_queue_oldest_age_seconds",
        "Since the oldest case that is ready was registered; 0 where none is",
        value=0.0 if oldest is None else (now - oldest).total_seconds(),
    )
    leases = GaugeMetricFamily("rekindle_leases_active", "Live leases", value=overview.leases)
    rounds = GaugeMetricFamily("rekindle_round_current", "Newest round of a running project", labels=["project"])
    for project_id, number in overview.rounds.items():
        rounds.add_metric([project_id], number)
    return [cases, age, leases, rounds]
