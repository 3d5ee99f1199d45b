"""What Prometheus is told of the scheduler: what its transactions did, and how many cases are where."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from rekindle.errors import LeaseLost, RekindleError

from rekindle_scheduler.domain.enums import CaseState
from rekindle_scheduler.domain.events import Event, EventKind, LeasesExpired, Occurrence, TimeBooked
from rekindle_scheduler.state import State

#: Kinds of events that say what became of a label.
_RESULTS: Final = {
    EventKind.CASE_SUBMITTED: "accepted",
    EventKind.REVIEW_REQUESTED: "pending",
    EventKind.DRAFT_KEPT: "draft",
    EventKind.LABEL_ACCEPTED: "accepted",
    EventKind.LABEL_REJECTED: "rejected",
    EventKind.LABEL_WITHDRAWN: "withdrawn",
}
#: Kinds of events that are steps of rounds.
_TRANSITIONS: Final = {
    EventKind.ROUND_SELECTING: "selecting",
    EventKind.ROUND_OPENED: "opened",
    EventKind.ROUND_CLOSED: "closed",
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

    def observe(self, occurrences: Sequence[Occurrence]) -> None:
        """Count what one committed transaction did."""
        for occurrence in occurrences:
            match occurrence:
                case TimeBooked():
                    self._seconds.labels(occurrence.source).inc(occurrence.active_seconds)
                case LeasesExpired():
                    self._expirations.inc(occurrence.number)
                case Event():
                    self._count(occurrence)

    def call_refused(self, _method: str, error: RekindleError) -> None:
        """Count a write that came with an old token."""
        if isinstance(error, LeaseLost):
            self._fenced.inc()

    def _count(self, event: Event) -> None:
        if event.kind in _RESULTS:
            self._submissions.labels(_RESULTS[event.kind]).inc()
        if event.kind in _TRANSITIONS:
            self._transitions.labels(_TRANSITIONS[event.kind]).inc()
        durations = {EventKind.ROUND_CLOSED: self._rounds, EventKind.CASE_SUBMITTED: self._duration}
        if event.kind in durations and event.seconds is not None:
            durations[event.kind].observe(event.seconds)


def queue_metrics(state: State) -> Iterable[Metric]:
    """Cases by state over all projects, the oldest that waits, live leases, the round of each running project."""
    with state.read() as uow:
        overview, now = uow.tallies.overview(), uow.now
    cases = GaugeMetricFamily("rekindle_queue_cases", "Cases by state", labels=["state"])
    for case_state in CaseState:
        cases.add_metric([case_state.value], overview.cases.get(case_state, 0))
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
