"""What the trainer does for its callers, one function each."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass

from rekindle.errors import AlreadyExists, DependencyUnavailable, FieldViolation, NotFound, VersionConflict, quoted_id
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.principal import Principal
from rekindle_servicekit.workers import Cancellation

from rekindle_trainer.domain.limits import TrainingLimits, limits_violations
from rekindle_trainer.domain.metrics import Metric
from rekindle_trainer.domain.paging import decode_token, encode_token, page_limit
from rekindle_trainer.domain.runs import WAITING, Run
from rekindle_trainer.domain.spec import Example, RunSpec, compact_json
from rekindle_trainer.domain.specs import in_order, spec_json
from rekindle_trainer.domain.validation import check_spec, raise_violations
from rekindle_trainer.ports import State, Transaction
from rekindle_trainer.usecases.run_outputs import remove_checkpoints

_START, _CANCEL, _LIMIT = "StartRun", "CancelRun", "SetTrainingLimits"
_CANCEL_POLL_S = 0.1
_METRICS_PER_READ = 500
_LOOKS_AT_ONCE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class RunPage:
    """Some runs of a project, newest first."""

    runs: list[Run]
    #: Empty on the last page.
    next_page_token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class RunNews:
    """What has happened to a run since somebody looked."""

    run: Run
    metrics: list[Metric]
    #: Whether there is more to read at once.
    has_more: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitsReport:
    """How a project stands with its limits."""

    limits: TrainingLimits
    #: Spent by all its runs until now.
    gpu_seconds: float
    #: Empty where its runs may run.
    held_reason: str


def start_run(
    state: State,
    objects: Objects,
    catalogue: Mapping[str, frozenset[str]],
    principal: Principal,
    *,
    request_id: str,
    spec: RunSpec,
    limits: TrainingLimits | None = None,
) -> Run:
    """Queue a run, once per run id, and take over its project's limits, unless newer ones are there.

    InvalidInput with field violations; AlreadyExists where the run id stands for another spec or project.
    """
    given, spec = spec, in_order(spec)
    content = spec_json(spec)
    digest = hashlib.sha256(content).hexdigest()
    with state.read() as tx:
        known = _same_run(tx, spec, content)
    if known is None:
        # Looking for many objects takes time, so it happens before the transaction; objects never disappear
        # while something refers to them.
        check_spec(given, catalogue)
        if limits is not None:
            raise_violations(limits_violations("limits", limits))
        raise_violations(list(_missing_objects(objects, given)))
    with state.write() as tx:
        answered = tx.was_answered(principal, _START, request_id, digest)
        known = _same_run(tx, spec, content)
        if limits is not None and not answered:
            tx.set_limits(spec.project_id, limits)
        if known is None:
            tx.add_run(
                Run(
                    run_id=spec.run_id,
                    project_id=spec.project_id,
                    spec=spec,
                    snapshot_digest=spec.snapshot_digest(),
                    reason="waits to be started",
                    created_by=f"{principal.issuer}/{principal.subject}",
                    created_at=tx.now,
                )
            )
        if not answered:
            tx.mark_answered(principal, _START, request_id, digest)
        return _require(tx, spec.project_id, spec.run_id)


def get_run(state: State, principal: Principal, *, project_id: str, run_id: str) -> Run:
    """NotFound also where the run belongs to another project."""
    with state.read() as tx:
        return _require(tx, project_id, run_id)


def list_runs(state: State, principal: Principal, *, project_id: str, page_size: int, page_token: str) -> RunPage:
    """Runs of a project, newest first; InvalidInput for a token of another list."""
    if not project_id:
        raise_violations([FieldViolation("project_id", "is missing")])
    limit = page_limit(page_size)
    position = decode_token(project_id, page_token)
    with state.read() as tx:
        runs = tx.page_runs(project_id, limit + 1, position)
    page = runs[:limit]
    more = encode_token(project_id, (page[-1].created_at, page[-1].run_id)) if len(runs) > limit else ""
    return RunPage(runs=page, next_page_token=more)


def cancel_run(
    state: State,
    objects: Objects,
    advance: Callable[[str], None],
    cancellation: Cancellation,
    principal: Principal,
    *,
    request_id: str,
    project_id: str,
    run_id: str,
) -> Run:
    """Stop a run and its process, and return once it is gone; IllegalTransition where the run has ended.

    `advance` looks after one run's process (see supervisor). Where the caller's time runs out meanwhile,
    the run is cancelled all the same.
    """
    digest = hashlib.sha256(compact_json([project_id, run_id])).hexdigest()
    with state.write() as tx:
        run = _require(tx, project_id, run_id)
        if not tx.was_answered(principal, _CANCEL, request_id, digest):
            run = tx.update_run(run.cancel(tx.now) if run.state in WAITING else run.request_cancel())
            tx.mark_answered(principal, _CANCEL, request_id, digest)
    if run.has_ended:
        # Of a run that waited nobody else removes them; where the store is away, the next start of a supervisor does.
        with suppress(DependencyUnavailable):
            remove_checkpoints(objects, run_id)
    while not run.has_ended:
        with suppress(VersionConflict):  # the supervisor was faster
            advance(run_id)
        run = get_run(state, principal, project_id=project_id, run_id=run_id)
        if not run.has_ended:
            cancellation.raise_if_set()
            time.sleep(_CANCEL_POLL_S)
    return run


def set_training_limits(
    state: State, principal: Principal, *, request_id: str, project_id: str, limits: TrainingLimits
) -> TrainingLimits:
    """Limit a project's runs, those under way too, unless newer limits are there; the ones that hold then."""
    missing = [] if project_id else [FieldViolation("project_id", "is missing")]
    raise_violations([*missing, *limits_violations("limits", limits)])
    digest = hashlib.sha256(compact_json([project_id, asdict(limits)])).hexdigest()
    with state.write() as tx:
        if not tx.was_answered(principal, _LIMIT, request_id, digest):
            tx.set_limits(project_id, limits)
            tx.mark_answered(principal, _LIMIT, request_id, digest)
        return tx.find_limits(project_id)


def get_training_limits(state: State, principal: Principal, *, project_id: str) -> LimitsReport:
    """A project's limits, what it has spent of them, and why its runs would wait now."""
    if not project_id:
        raise_violations([FieldViolation("project_id", "is missing")])
    with state.read() as tx:
        limits, spent = tx.find_limits(project_id), tx.gpu_seconds(project_id)
        return LimitsReport(limits=limits, gpu_seconds=spent, held_reason=limits.held_reason(spent, tx.now))


def read_news(state: State, principal: Principal, *, project_id: str, run_id: str, after_cursor: int) -> RunNews:
    """Metrics after a cursor, and the run as of the same moment."""
    with state.read() as tx:
        run = _require(tx, project_id, run_id)
        metrics = tx.metrics_after(run_id, after_cursor, _METRICS_PER_READ)
    return RunNews(run=run, metrics=metrics, has_more=len(metrics) == _METRICS_PER_READ)


def _require(tx: Transaction, project_id: str, run_id: str) -> Run:
    run = tx.find_run(run_id)
    if run is None or run.project_id != project_id:
        raise NotFound(f"there is no run {quoted_id(run_id)} in this project", reason="RUN_NOT_FOUND")
    return run


def _same_run(tx: Transaction, spec: RunSpec, content: bytes) -> Run | None:
    known = tx.find_run(spec.run_id)
    if known is not None and spec_json(known.spec) != content:
        raise AlreadyExists(
            "this run_id stands for a run with another spec: make a new one for a new run",
            reason="RUN_DIFFERS",
        )
    return known


def _missing_objects(objects: Objects, spec: RunSpec) -> Iterator[FieldViolation]:
    stored = _stored_volumes(objects, (*spec.training, *spec.heldout))
    for name, examples in (("training", spec.training), ("heldout", spec.heldout)):
        for index, example in enumerate(examples):
            yield from _missing_pixels(stored, f"spec.{name}[{index}]", example)
    if spec.initial_weights is not None and not objects.exists(f"weights/{spec.initial_weights}"):
        yield FieldViolation("spec.initial_weights_digest", "no such weights are stored")
    if spec.current_package is not None and not objects.exists(f"packages/{spec.current_package}/manifest.json"):
        yield FieldViolation("spec.current_package_digest", "no such package is stored")


def _stored_volumes(objects: Objects, examples: Iterable[Example]) -> set[str]:
    """Digests of those that are there; many at a time, as thousands one by one take a bucket minutes to answer."""
    digests = sorted({digest for each in examples for digest in (each.image_digest, each.mask_digest)})
    with ThreadPoolExecutor(_LOOKS_AT_ONCE, thread_name_prefix="look") as pool:
        found = pool.map(lambda digest: objects.exists(f"canonical/{digest}"), digests)
        return {digest for digest, is_there in zip(digests, found, strict=True) if is_there}


def _missing_pixels(stored: set[str], field: str, example: Example) -> Iterator[FieldViolation]:
    for name, digest in (("image_digest", example.image_digest), ("mask_digest", example.mask_digest)):
        if digest not in stored:
            yield FieldViolation(f"{field}.{name}", "no such volume is stored: upload it first")
