"""Rows to records and back."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import sqlalchemy as sa
from rekindle.vocabulary import RunResult, RunState, Weekday
from rekindle_servicekit.json_codec import decode, encode

from rekindle_trainer.domain.limits import TrainingLimits
from rekindle_trainer.domain.metrics import Metric, MetricRecord
from rekindle_trainer.domain.runs import Attempt, AttemptState, Run
from rekindle_trainer.domain.spec import RunSpec, compact_json, parse_spec, spec_json

_DAYS = tuple(Weekday)


def run_row(run: Run) -> dict[str, Any]:
    """Columns of a new run, all but its version."""
    return {
        "run_id": run.run_id,
        "project_id": run.project_id,
        "spec": spec_json(run.spec).decode(),
        "snapshot_digest": run.snapshot_digest,
        "created_by": run.created_by,
        "created_at": run.created_at,
        **run_changes(run),
    }


def run_changes(run: Run) -> dict[str, Any]:
    """Columns that a step of a run may change: what it was asked for stays as it is stored."""
    return {
        "state": run.state.value,
        "reason": run.reason,
        "started_at": run.started_at,
        "ended_at": run.ended_at,
        "attempts": run.attempts,
        "failures": run.failures,
        "cancel_requested": run.cancel_requested,
        "committed_attempt": run.committed_attempt,
        "result": None if run.result is None else compact_json(encode(run.result)).decode(),
    }


def run_record(row: sa.Row[Any], latest: Metric | None) -> Run:
    return Run(
        run_id=row.run_id,
        project_id=row.project_id,
        spec=_spec(row.spec),
        snapshot_digest=row.snapshot_digest,
        state=RunState(row.state),
        reason=row.reason,
        created_by=row.created_by,
        created_at=row.created_at,
        started_at=row.started_at,
        ended_at=row.ended_at,
        attempts=row.attempts,
        failures=row.failures,
        cancel_requested=row.cancel_requested,
        committed_attempt=row.committed_attempt,
        result=None if row.result is None else decode(RunResult, json.loads(row.result)),
        latest=latest,
        version=row.version,
    )


@lru_cache(maxsize=16)
def _spec(text: str) -> RunSpec:
    """A run is read several times a second while it goes on, and its spec may name thousands of examples."""
    return parse_spec(text.encode())


def attempt_row(attempt: Attempt) -> dict[str, Any]:
    return {**asdict(attempt), "state": attempt.state.value}


def attempt_record(row: sa.Row[Any]) -> Attempt:
    return Attempt(
        run_id=row.run_id,
        number=row.number,
        state=AttemptState(row.state),
        handle=row.handle,
        claimed_at=row.claimed_at,
        ended_at=row.ended_at,
        exit_code=row.exit_code,
        reason=row.reason,
        gpus=row.gpus or 0,
        began_at=row.began_at,
        seen_at=row.seen_at,
        is_at_work=bool(row.is_at_work),
        worked_seconds=row.worked_seconds,
    )


def limits_record(row: sa.Row[Any]) -> TrainingLimits:
    raw = json.loads(row.record)
    if raw["window"] is not None:
        raw["window"]["days"] = [_DAYS[number] for number in raw["window"]["days"]]
    return decode(TrainingLimits, {**raw, "version": row.version})


def limits_row(project_id: str, limits: TrainingLimits) -> dict[str, Any]:
    record = encode(limits)
    del record["version"]
    if limits.window is not None:
        # Days are stored as numbers, 0 for Monday, which earlier releases read.
        record["window"]["days"] = [_DAYS.index(day) for day in limits.window.days]
    return {"project_id": project_id, "version": limits.version, "record": compact_json(record).decode()}


def metric_row(run_id: str, metric: Metric) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "cursor": metric.cursor,
        "attempt": metric.attempt,
        "number": metric.number,
        "seen_at": metric.time,
        "record": compact_json(encode(metric.record)).decode(),
    }


def metric_record(row: sa.Row[Any]) -> Metric:
    return Metric(
        cursor=row.cursor,
        attempt=row.attempt,
        number=row.number,
        time=row.seen_at,
        record=decode(MetricRecord, json.loads(row.record)),
    )
