"""What the trainer does with runs for its callers, one function each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime

from rekindle.errors import AlreadyExists, DependencyUnavailable, FieldViolation, NotFound, VersionConflict, quoted_id
from rekindle.vocabulary import Example
from rekindle_servicekit import layout
from rekindle_servicekit.layout import PackageKeys
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.principal import Principal
from rekindle_servicekit.workers import Cancellation

from rekindle_trainer.domain.limits import TrainingLimits, limits_violations
from rekindle_trainer.domain.metrics import Metric
from rekindle_trainer.domain.runs import WAITING, Run
from rekindle_trainer.domain.spec import RunSpec, check_spec, in_order, raise_violations, spec_json
from rekindle_trainer.state import State, UnitOfWork
from rekindle_trainer.usecases.run_outputs import remove_checkpoints

_METRICS_PER_READ = 500
_LOOKS_AT_ONCE = 16
_CANCEL_POLL_S = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNews:
    """What has happened to a run since a cursor."""

    run: Run
    metrics: list[Metric]
    #: Whether there is more to read at once.
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsReport:
    """How a project stands with its limits."""

    limits: TrainingLimits
    #: GPU seconds spent by all its runs until now.
    gpu_seconds: float
    #: Reason why its runs would wait now; empty where they may run.
    held_reason: str


def examine_run(
    state: State,
    objects: Objects,
    catalogue: Mapping[str, frozenset[str]],
    spec: RunSpec,
    limits: TrainingLimits | None = None,
) -> None:
    """Check a run before it is queued, objects included; a run that is there already needs no second look.

    Looking for many objects takes time, so it happens before the transaction; objects never disappear while something
    refers to them. InvalidInput with field violations; AlreadyExists where the run id stands for another spec.
    """
    with state.read() as uow:
        if _same_run(uow, in_order(spec)) is not None:
            return
    check_spec(spec, catalogue)
    if limits is not None:
        raise_violations(limits_violations("limits", limits))
    raise_violations(list(_missing_objects(objects, spec)))


def start_run(uow: UnitOfWork, principal: Principal, spec: RunSpec, limits: TrainingLimits | None = None) -> Run:
    """Queue an examined run, once per run id, and take over its project's limits, unless newer ones are there.

    AlreadyExists where the run id stands for another spec or project.
    """
    spec = in_order(spec)
    run = _same_run(uow, spec)
    if limits is not None:
        uow.set_limits(spec.project_id, limits)
    if run is None:
        uow.add_run(
            Run(
                run_id=spec.run_id,
                project_id=spec.project_id,
                spec=spec,
                snapshot_digest=spec.snapshot_digest(),
                reason="waits to be started",
                created_by=f"{principal.issuer}/{principal.subject}",
                created_at=uow.now,
            )
        )
    return get_run(uow, spec.project_id, spec.run_id)


def get_run(uow: UnitOfWork, project_id: str, run_id: str) -> Run:
    """NotFound also where the run belongs to another project."""
    run = uow.find_run(run_id)
    if run is None or run.project_id != project_id:
        raise NotFound(f"there is no run {quoted_id(run_id)} in this project", reason="RUN_NOT_FOUND")
    return run


def list_runs(uow: UnitOfWork, project_id: str, *, before: tuple[datetime, str] | None, limit: int) -> list[Run]:
    """Runs of a project, newest first, behind the one with this (created_at, run_id)."""
    if not project_id:
        raise_violations([FieldViolation("project_id", "is missing")])
    return uow.page_runs(project_id, limit, before)


def request_cancel(uow: UnitOfWork, project_id: str, run_id: str) -> Run:
    """Cancel a run that waits, and ask a running one to stop; IllegalTransition where it has ended."""
    run = get_run(uow, project_id, run_id)
    return uow.update_run(run.cancel(uow.now) if run.state in WAITING else run.request_cancel())


def await_cancelled(
    state: State,
    objects: Objects,
    advance: Callable[[str], None],
    cancellation: Cancellation,
    project_id: str,
    run_id: str,
) -> Run:
    """Return once a run that is to be cancelled has ended and its process is gone.

    `advance` looks after one run's process (see supervisor). Where the caller's time runs out meanwhile (Cancelled,
    DeadlineExceeded), the run is cancelled all the same.
    """

    def read() -> Run:
        with state.read() as uow:
            return get_run(uow, project_id, run_id)

    run = read()
    if run.has_ended:
        # Nobody else removes those of a run that waited; where the store is away, the next start of a supervisor does.
        with suppress(DependencyUnavailable):
            remove_checkpoints(objects, run_id)
    while not run.has_ended:
        with suppress(VersionConflict):  # the supervisor was faster
            advance(run_id)
        run = read()
        if not run.has_ended:
            cancellation.raise_if_set()
            time.sleep(_CANCEL_POLL_S)
    return run


def set_training_limits(uow: UnitOfWork, project_id: str, limits: TrainingLimits) -> None:
    """Limit a project's runs, those under way too, unless newer limits are there."""
    missing = [] if project_id else [FieldViolation("project_id", "is missing")]
    raise_violations([*missing, *limits_violations("limits", limits)])
    uow.set_limits(project_id, limits)


def get_training_limits(uow: UnitOfWork, project_id: str) -> LimitsReport:
    """A project's limits, what it has spent of them, and why its runs would wait now."""
    if not project_id:
        raise_violations([FieldViolation("project_id", "is missing")])
    limits, spent = uow.find_limits(project_id), uow.gpu_seconds(project_id)
    return LimitsReport(limits=limits, gpu_seconds=spent, held_reason=limits.held_reason(spent, uow.now))


def read_news(uow: UnitOfWork, project_id: str, run_id: str, after_cursor: int) -> RunNews:
    """Metrics after a cursor, and the run as of the same moment."""
    run = get_run(uow, project_id, run_id)
    metrics = uow.metrics_after(run_id, after_cursor, _METRICS_PER_READ)
    return RunNews(run=run, metrics=metrics, has_more=len(metrics) == _METRICS_PER_READ)


def _same_run(uow: UnitOfWork, spec: RunSpec) -> Run | None:
    run = uow.find_run(spec.run_id)
    if run is not None and spec_json(run.spec) != spec_json(spec):
        raise AlreadyExists(
            "this run_id stands for a run with another spec: make a new one for a new run",
            reason="RUN_DIFFERS",
        )
    return run


def _missing_objects(objects: Objects, spec: RunSpec) -> Iterator[FieldViolation]:
    stored = _stored_volumes(objects, (*spec.training, *spec.heldout))
    for name, examples in (("training", spec.training), ("heldout", spec.heldout)):
        for index, example in enumerate(examples):
            yield from _missing_pixels(stored, f"spec.{name}[{index}]", example)
    if spec.initial_weights is not None and not objects.exists(layout.weights(spec.initial_weights)):
        yield FieldViolation("spec.initial_weights_digest", "no such weights are stored")
    if spec.current_package is not None and not objects.exists(PackageKeys(spec.current_package).manifest):
        yield FieldViolation("spec.current_package_digest", "no such package is stored")


def _stored_volumes(objects: Objects, examples: Iterable[Example]) -> set[str]:
    """Digests of those that are there; many at a time, as thousands one by one take a bucket minutes to answer."""
    digests = sorted({digest for example in examples for digest in (example.image_digest, example.mask_digest)})
    with ThreadPoolExecutor(_LOOKS_AT_ONCE, thread_name_prefix="look") as pool:
        exists = pool.map(lambda digest: objects.exists(layout.canonical(digest)), digests)
        return {digest for digest, is_there in zip(digests, exists, strict=True) if is_there}


def _missing_pixels(stored: set[str], field: str, example: Example) -> Iterator[FieldViolation]:
    for name, digest in (("image_digest", example.image_digest), ("mask_digest", example.mask_digest)):
        if digest not in stored:
            yield FieldViolation(f"{field}.{name}", "no such volume is stored: upload it first")
