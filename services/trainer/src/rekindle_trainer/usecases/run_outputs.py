"""What a run's process leaves in the object store: metrics, and how it ended."""

from __future__ import annotations

import json
import logging

from rekindle.errors import NotFound
from rekindle.vocabulary import RunResult
from rekindle_servicekit import layout
from rekindle_servicekit.layout import PackageKeys, RunKeys
from rekindle_servicekit.objects import Objects

from rekindle_trainer.domain.metrics import MetricRecord, parse_metric
from rekindle_trainer.domain.results import BadResult, parse_result
from rekindle_trainer.domain.retry import Failure, ProcessEnd
from rekindle_trainer.domain.runs import Run
from rekindle_trainer.ports import ProcessStatus

_log = logging.getLogger(__name__)
#: Failure messages are shown to people and travel in trailers.
_MAX_MESSAGE_CHARACTERS = 500


def read_metrics(objects: Objects, run_id: str, attempt: int, seen: int) -> list[tuple[int, MetricRecord]]:
    """Records numbered `seen` + 1 and up, to the first one that is not there yet."""
    records: list[tuple[int, MetricRecord]] = []
    number = seen + 1
    while True:
        try:
            data = objects.get(RunKeys(run_id).attempt(attempt).metric(number))
        except NotFound:
            return records
        try:
            records.append((number, parse_metric(json.loads(data))))
        except ValueError:
            _log.warning("metrics record %d is malformed and left out", number, extra={"action": "run.bad-metric"})
        number += 1


def read_end(
    objects: Objects,
    run: Run,
    attempt: int,
    status: ProcessStatus,
    *,
    was_told_to_stop: bool = False,
    held_reason: str = "",
) -> ProcessEnd:
    """How the process of an attempt ended, by what it left behind and what its launcher says."""
    result, bad_result = _read_result(objects, run, attempt)
    return ProcessEnd(
        exit_code=status.exit_code,
        words=status.reason,
        was_preempted=status.was_preempted,
        is_final=status.is_final,
        result=result,
        bad_result=bad_result,
        failure=_read_failure(objects, run.run_id, attempt),
        was_told_to_stop=was_told_to_stop,
        held_reason=held_reason,
        began_at=status.began_at,
        ended_at=status.ended_at,
    )


def result_keys(result: RunResult) -> list[str]:
    """Keys of the objects that must be there before the result may be believed."""
    packages = [key for package in result.packages for key in PackageKeys(package.package_digest).both]
    return [layout.weights(result.weights_digest), *packages]


def runs_with_checkpoints(objects: Objects) -> list[str]:
    """Ids of the runs that have any."""
    keys = objects.list(layout.RUNS)
    return sorted({layout.run_id_of(key) for key in keys if layout.checkpoint_attempt(key) is not None})


def remove_checkpoints(objects: Objects, run_id: str) -> None:
    """Remove those of all attempts; metrics, results and failures stay."""
    for key in list(objects.list(RunKeys(run_id).folder)):
        if layout.checkpoint_attempt(key) is not None:
            objects.delete(key)


def remove_older_checkpoints(objects: Objects, run_id: str, attempt: int) -> None:
    """Remove those of the attempts before, where this one has a complete one, which is then further than theirs."""
    keys = {key: layout.checkpoint_attempt(key) for key in objects.list(RunKeys(run_id).folder)}
    if any(number == attempt and layout.checkpoint_state(key) for key, number in keys.items()):
        older = [key for key, number in keys.items() if number is not None and number < attempt]
        # States first: one without its weights would look complete.
        for key in sorted(older, key=lambda key: layout.checkpoint_state(key) is None):
            objects.delete(key)


def _read_result(objects: Objects, run: Run, attempt: int) -> tuple[RunResult | None, str | None]:
    try:
        data = objects.get(RunKeys(run.run_id).attempt(attempt).result)
    except NotFound:
        return None, None
    try:
        result = parse_result(data, run.spec)
    except BadResult as error:
        return None, str(error)
    missing = [key for key in result_keys(result) if not objects.exists(key)]
    return (None, f"{missing[0]} is not stored") if missing else (result, None)


def _read_failure(objects: Objects, run_id: str, attempt: int) -> Failure | None:
    try:
        raw = json.loads(objects.get(RunKeys(run_id).attempt(attempt).failure))
        return Failure(reason=str(raw["reason"]), message=str(raw["message"])[:_MAX_MESSAGE_CHARACTERS])
    except NotFound:
        return None
    except (ValueError, TypeError, KeyError):
        return Failure(reason="CRASHED", message="the training process failed and its report cannot be read")
