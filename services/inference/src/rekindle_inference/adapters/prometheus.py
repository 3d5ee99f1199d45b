"""What Prometheus is told of inference: predictions and their stages, refusals, models, orphans, the queue."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from rekindle.errors import IntegrityError, InvalidInput, NotFound, RekindleError
from rekindle_servicekit.admin import Verify
from rekindle_servicekit.metrics import code_of
from rekindle_servicekit.verification import Finding, FindingKind, Summary, VerifyOptions
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.domain.segmentations import SegmentationState
from rekindle_inference.ports import Observation, Stage
from rekindle_inference.state import State

_BUCKETS_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900)
#: Calls by which a volume comes in.
_TAKING_IN: Final = frozenset({"UploadVolume", "UploadStudy", "CreateUpload", "FinalizeUpload"})
_REASON: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")
#: More reasons than there are in the code; the rest of them is one.
_MOST_REASONS: Final = 100
_OTHER: Final = "OTHER"
#: All but those that succeeded, which are most of them: predictions are counted as they end.
_COUNTED: Final = tuple(state for state in SegmentationState if state is not SegmentationState.SUCCEEDED)


class InferenceMetrics:
    """Counters of this process; Prometheus adds those of several up. It is the use cases' `Observer`."""

    def __init__(self, registry: CollectorRegistry, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._registry = registry
        self._clock = clock
        self._requests = Counter(
            "rekindle_inference_requests", "Predictions by how they ended", ["code"], registry=registry
        )
        self._duration = Histogram(
            "rekindle_inference_duration_seconds",
            "What a prediction that succeeded spent in each stage",
            ["stage"],
            buckets=_BUCKETS_S,
            registry=registry,
        )
        self._rejected = Counter(
            "rekindle_volumes_rejected", "Files and series that became no volume", ["reason"], registry=registry
        )
        self._published = Counter(
            "rekindle_model_publish", "Packages that were to become model versions", ["result"], registry=registry
        )
        self._reasons: set[str] = set()
        self._orphans: Gauge | None = None

    @contextmanager
    def prediction(self) -> Generator[Observation]:
        """Count it by its status code; of one that succeeded, observe its stages."""
        watch = _StopWatch(self._clock)
        try:
            yield watch
        except BaseException as failure:
            self._requests.labels(code_of(failure)).inc()
            raise
        self._requests.labels(code_of(None)).inc()
        for stage, seconds in watch.spent.items():
            self._duration.labels(stage.value).observe(seconds)

    @contextmanager
    def publication(self) -> Generator[None]:
        """`registered`; `refused` where the package is at fault; `failed` where something else is."""
        result = "failed"
        try:
            yield
            result = "registered"
        except (InvalidInput, IntegrityError, NotFound):
            result = "refused"
            raise
        finally:
            self._published.labels(result).inc()

    def series_refused(self, reason: str) -> None:
        """Count a series of a study."""
        # Reasons are constants of the code, but this one came from the process that read a foreign file.
        is_known = reason in self._reasons or (len(self._reasons) < _MOST_REASONS and _REASON.fullmatch(reason))
        if is_known:
            self._reasons.add(reason)
        self._rejected.labels(reason if is_known else _OTHER).inc()

    def call_refused(self, method: str, error: RekindleError) -> None:
        """Count a file that was refused; errors that pass, such as a store that is away, are none."""
        if method.rpartition("/")[2] in _TAKING_IN and isinstance(error, InvalidInput | IntegrityError):
            self.series_refused(error.reason)

    def noting_orphans(self, verify: Verify) -> Verify:
        """`verify`, with what it found without a row kept as a gauge, which is there from the first one on."""

        def noting(options: VerifyOptions, summary: Summary, cancellation: Cancellation) -> Iterator[Finding]:
            orphans = 0
            for finding in verify(options, summary, cancellation):
                orphans += finding.kind is FindingKind.ORPHANED
                yield finding
            self._set_orphans(orphans)

        return noting

    def _set_orphans(self, number: int) -> None:
        if self._orphans is None:
            self._orphans = Gauge(
                "rekindle_object_orphans", "Objects without a row, as last verified", registry=self._registry
            )
        self._orphans.set(number)


class _StopWatch:
    """Seconds by stage, of one prediction."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.spent: dict[Stage, float] = {}

    @contextmanager
    def stage(self, stage: Stage) -> Generator[None]:
        started = self._clock()
        try:
            yield
        finally:
            self.spent[stage] = self.spent.get(stage, 0.0) + self._clock() - started


def queue_metrics(state: State) -> Iterable[Metric]:
    """Durable segmentations by state, of all projects, but for those that succeeded."""
    with state.read() as uow:
        counts = uow.segmentations.count(_COUNTED)
    by_state = GaugeMetricFamily(
        "rekindle_segmentations", "Durable segmentations by state, without those that succeeded", labels=["state"]
    )
    for segmentation_state in _COUNTED:
        by_state.add_metric([segmentation_state.value], counts.get(segmentation_state, 0))
    return [by_state]
