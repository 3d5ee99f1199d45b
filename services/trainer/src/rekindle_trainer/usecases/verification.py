"""Whether the runs and the object store agree."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime

from rekindle.errors import NotFound
from rekindle.vocabulary import RunState
from rekindle_servicekit import layout
from rekindle_servicekit.layout import RunKeys
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.verification import (
    Expected,
    Finding,
    FindingKind,
    Summary,
    VerifyOptions,
    compare_objects,
)
from rekindle_servicekit.workers import Cancellation

from rekindle_trainer.domain.runs import Run
from rekindle_trainer.state import State
from rekindle_trainer.usecases.run_outputs import result_keys

_RUNS_AT_ONCE = 500
_TRAIN_AGAIN = "restore the object store, or train again"


def verify(
    state: State, objects: Objects, options: VerifyOptions, summary: Summary, cancellation: Cancellation
) -> Iterator[Finding]:
    """Findings over ``runs/`` and ``weights/``; packages are only looked for, as inference keeps them too."""
    now = datetime.now(UTC)
    runs = {run.run_id: run for run in _all_runs(state)}
    summary.rows += len(runs)
    expected = [item for run in runs.values() for item in _of_run(run)]
    summary.shared_objects.extend(sorted({item.key for item in expected if item.key.startswith(layout.PACKAGES)}))
    spare = _named_weights(objects, runs.values())
    known = replace(options, known_objects=options.known_objects | spare)
    yield from compare_objects(objects, expected, (layout.WEIGHTS,), known, summary, cancellation, now=now)
    for key in objects.list(layout.RUNS):
        cancellation.raise_if_set()
        summary.objects += 1
        yield from _leftover(objects, key, runs.get(layout.run_id_of(key)), options, now)


def _all_runs(state: State) -> Iterator[Run]:
    after = ""
    while True:
        with state.read() as uow:
            page = uow.runs_after(after, _RUNS_AT_ONCE)
        yield from page
        if len(page) < _RUNS_AT_ONCE:
            return
        after = page[-1].run_id


def _of_run(run: Run) -> Iterator[Expected]:
    row = f"runs/{run.run_id}"
    if run.state is RunState.SUCCEEDED and run.result is not None:
        for key in result_keys(run.result):
            # Weights and manifests are named by their digest; a model's is in its manifest, which inference checks.
            sha256 = key.split("/")[1] if not key.endswith("model.onnx") else None
            yield Expected(key=key, row=row, project_id=run.project_id, sha256=sha256, remedy=_TRAIN_AGAIN)
    if run.spec.initial_weights is not None and not run.has_ended:
        digest = run.spec.initial_weights
        yield Expected(
            key=layout.weights(digest), row=row, project_id=run.project_id, sha256=digest, remedy=_TRAIN_AGAIN
        )


def _named_weights(objects: Objects, runs: Iterable[Run]) -> frozenset[str]:
    """Weights that runs name beside their result: where they began, and what their phases ended with."""
    keys: set[str] = set()
    for run in runs:
        if run.spec.initial_weights is not None:
            keys.add(layout.weights(run.spec.initial_weights))
        if run.committed_attempt is not None:
            try:
                raw = json.loads(objects.get(RunKeys(run.run_id).attempt(run.committed_attempt).result))
                keys.update(layout.weights(digest) for digest in raw.get("phase_weights", {}).values())
            except (NotFound, ValueError, AttributeError):
                continue
    return frozenset(keys)


def _leftover(objects: Objects, key: str, run: Run | None, options: VerifyOptions, now: datetime) -> Iterator[Finding]:
    if run is not None and not (run.has_ended and layout.checkpoint_attempt(key) is not None):
        return
    try:
        age = now - objects.modified_at(key)
    except NotFound:  # removed meanwhile
        return
    if age >= options.grace:
        message = "no run of this id is known" if run is None else "a checkpoint of a run that has ended"
        yield Finding(
            kind=FindingKind.ORPHANED,
            where=key,
            project_id="" if run is None else run.project_id,
            message=message,
            remedy="nothing is lost by it but space; it may be removed",
        )
