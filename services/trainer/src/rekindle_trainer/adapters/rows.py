"""Rows to records and back."""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import lru_cache
from typing import Any

import sqlalchemy as sa

from rekindle_trainer.domain.limits import TrainingLimits
from rekindle_trainer.domain.metrics import Metric, MetricRecord
from rekindle_trainer.domain.results import CaseMetrics, OrganMetrics, RunPackage, RunResult
from rekindle_trainer.domain.runs import Attempt, AttemptState, Run, RunState
from rekindle_trainer.domain.spec import RunSpec, compact_json, parse_spec
from rekindle_trainer.domain.specs import spec_json
from rekindle_trainer.domain.windows import TrainingWindow


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
        "result": None if run.result is None else compact_json(asdict(run.result)).decode(),
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
        result=None if row.result is None else _result(json.loads(row.result)),
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
    window = raw["window"]
    return TrainingLimits(
        version=row.version,
        window=None
        if window is None
        else TrainingWindow(
            days=tuple(window["days"]), start=window["start"], end=window["end"], time_zone=window["time_zone"]
        ),
        gpu_seconds_budget=raw["gpu_seconds_budget"],
    )


def limits_row(project_id: str, limits: TrainingLimits) -> dict[str, Any]:
    record = {key: value for key, value in asdict(limits).items() if key != "version"}
    return {"project_id": project_id, "version": limits.version, "record": compact_json(record).decode()}


def metric_row(run_id: str, metric: Metric) -> dict[str, Any]:
    return {
        "run_id": run_id,
        "cursor": metric.cursor,
        "attempt": metric.attempt,
        "number": metric.number,
        "seen_at": metric.time,
        "record": compact_json(asdict(metric.record)).decode(),
    }


def metric_record(row: sa.Row[Any]) -> Metric:
    return Metric(
        cursor=row.cursor,
        attempt=row.attempt,
        number=row.number,
        time=row.seen_at,
        record=MetricRecord(**json.loads(row.record)),
    )


def _result(raw: dict[str, Any]) -> RunResult:
    def cases(name: str) -> tuple[CaseMetrics, ...]:
        return tuple(
            CaseMetrics(
                image_digest=case["image_digest"],
                case_id=case["case_id"],
                organs=tuple(OrganMetrics(**organ) for organ in case["organs"]),
            )
            for case in raw[name]
        )

    return RunResult(
        weights_digest=raw["weights_digest"],
        packages=tuple(RunPackage(**package) for package in raw["packages"]),
        candidate=cases("candidate"),
        current=cases("current"),
        training_check=cases("training_check"),
        train_seconds=raw["train_seconds"],
        epochs=raw["epochs"],
        final_loss=raw["final_loss"],
    )
