"""What the trainer keeps of a project, for its archive."""

from __future__ import annotations

import json
from typing import Any

import sqlalchemy as sa
from rekindle.vocabulary import RunState
from rekindle_servicekit import layout
from rekindle_servicekit.layout import PackageKeys, RunKeys
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.project_archive import ProjectArchive, Tables
from rekindle_servicekit.project_rows import ProjectTable, Row

from rekindle_trainer.domain.runs import ENDED
from rekindle_trainer.state import rows, tables

#: A scheduler tells the limits of a project anew, by its policy; what was spent of them is in the attempts.
LEFT_OUT = ("requests", "training_limits")
_ENDED = [state.value for state in ENDED]


def project_archive(engine: sa.Engine, objects: Objects) -> ProjectArchive:
    """Runs that have ended with all that they left; runs under way as if they had not begun."""
    return ProjectArchive(
        service="trainer",
        engine=engine,
        tables=_TABLES,
        objects=objects,
        keys_of=_keys_of,
        folders_of=lambda found: [RunKeys(row["run_id"]).folder for row in _ended(found)],
        read_back=_read_back,
    )


def _archived(run: Row) -> Row:
    """A run under way depends on its spec alone: elsewhere it begins anew and comes to the same result."""
    if run["state"] in _ENDED:
        return run
    waiting = {
        "state": RunState.QUEUED.value,
        "reason": "waits to be started",
        "started_at": None,
        "attempts": 0,
        "failures": 0,
        "cancel_requested": False,
    }
    return {**run, **waiting}


def _of_ended_runs(table: sa.Table) -> ProjectTable:
    def of_project(project: str) -> sa.ColumnElement[bool]:
        own = sa.select(tables.runs.c.run_id).where(
            tables.runs.c.project_id == project, tables.runs.c.state.in_(_ENDED)
        )
        return table.c.run_id.in_(own)

    return ProjectTable(table=table, of_project=of_project, parent=("run_id", "runs", "run_id"))


_TABLES = (
    ProjectTable(
        table=tables.runs,
        of_project=lambda project: tables.runs.c.project_id == project,
        archived=_archived,
        # Grows with every change here, and means nothing elsewhere.
        filled={"version": lambda _: 0},
    ),
    _of_ended_runs(tables.attempts),
    _of_ended_runs(tables.metrics),
)


def _ended(found: Tables) -> list[Row]:
    return [row for row in found.get("runs", ()) if row["state"] in _ENDED]


def _keys_of(found: Tables) -> set[str]:
    keys: set[str] = set()
    for row in found.get("runs", ()):
        spec: dict[str, Any] = json.loads(row["spec"])
        if row["state"] not in _ENDED and spec.get("initial_weights"):
            keys.add(layout.weights(spec["initial_weights"]))
        if row["result"] is not None:
            result: dict[str, Any] = json.loads(row["result"])
            keys.add(layout.weights(result["weights_digest"]))
            for package in result["packages"]:
                keys |= set(PackageKeys(package["package_digest"]).both)
    return keys


def _read_back(connection: sa.Connection, project_id: str) -> None:
    found = connection.execute(sa.select(tables.runs).where(tables.runs.c.project_id == project_id)).all()
    for row in found:
        rows.run_record(row, None)
    own = sa.select(tables.runs.c.run_id).where(tables.runs.c.project_id == project_id)
    for row in connection.execute(sa.select(tables.attempts).where(tables.attempts.c.run_id.in_(own))):
        rows.attempt_record(row)
    for row in connection.execute(sa.select(tables.metrics).where(tables.metrics.c.run_id.in_(own))):
        rows.metric_record(row)
