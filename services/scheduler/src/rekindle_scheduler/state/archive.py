"""What the scheduler keeps of a project, for its archive."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from rekindle.errors import IllegalTransition, NotFound, quoted_id
from rekindle_servicekit.project_archive import ProjectArchive, Tables
from rekindle_servicekit.project_rows import ProjectTable, Row

from rekindle_scheduler.domain.ids import ProjectId
from rekindle_scheduler.domain.purges import PurgeState
from rekindle_scheduler.state import tables
from rekindle_scheduler.state.cases import CaseFilter
from rekindle_scheduler.state.submissions import SubmissionFilter
from rekindle_scheduler.state.unit_of_work import UnitOfWork, database_now

LEFT_OUT = ("requests",)


def project_archive(engine: sa.Engine) -> ProjectArchive:
    """All of it: labels, ledger, rounds, history; annotators as far as they have worked on it."""
    return ProjectArchive(
        service="scheduler",
        engine=engine,
        tables=_TABLES,
        before_export=_before_export,
        adapt=_with_annotators_of_here,
        read_back=_read_back,
    )


def _whole(table: sa.Table, **changes: Any) -> ProjectTable:
    return ProjectTable(table=table, of_project=lambda project: table.c.project_id == project, **changes)


def _annotators(project: str) -> sa.ColumnElement[bool]:
    named = [
        sa.select(table.c.annotator_id).where(table.c.project_id == project)
        for table in (tables.leases, tables.submissions, tables.drafts, tables.sessions, tables.ledger)
    ]
    named.append(sa.select(tables.submissions.c.reviewed_by).where(tables.submissions.c.project_id == project))
    return tables.annotators.c.annotator_id.in_(sa.union(*named).scalar_subquery())


def _without(*columns: str) -> Callable[[Row], Row]:
    """Clear columns of work under way: elsewhere it is not under way."""
    return lambda row: {**row, **dict.fromkeys(columns)}


def _next_sequence(connection: sa.Connection) -> int:
    newest = sa.select(sa.func.coalesce(sa.func.max(tables.projects.c.sequence), 0))
    return connection.execute(newest).scalar_one() + 1


#: Parents before children.
_TABLES = (
    ProjectTable(table=tables.annotators, of_project=_annotators),
    _whole(tables.projects, filled={"sequence": _next_sequence}),
    _whole(tables.seed_cases),
    _whole(tables.cases),
    _whole(tables.sessions),
    _whole(tables.leases),
    _whole(tables.submissions),
    _whole(tables.drafts),
    _whole(tables.rounds),
    _whole(tables.snapshots),
    _whole(tables.predictions, archived=_without("claimed_until")),
    _whole(tables.ledger),
    _whole(tables.events),
    _whole(tables.publications),
    _whole(tables.purges),
)


def _before_export(connection: sa.Connection, project_id: str) -> None:
    project = sa.select(tables.projects.c.project_id).where(tables.projects.c.project_id == project_id)
    if connection.execute(project).first() is None:
        raise NotFound(f"project {quoted_id(project_id)} does not exist", reason="PROJECT_NOT_FOUND")
    erasing = sa.select(tables.purges.c.purge_id).where(
        tables.purges.c.project_id == project_id, tables.purges.c.state == PurgeState.ERASING
    )
    if connection.execute(erasing).first() is not None:
        raise IllegalTransition(
            "a patient is being erased from the project: export it once that is done", reason="PURGE_UNDER_WAY"
        )


def _with_annotators_of_here(connection: sa.Connection, archived: Tables) -> Tables:
    """Annotators whom this database has already keep their ids of here."""
    here = {
        (row.issuer, row.subject): row.annotator_id for row in connection.execute(sa.select(tables.annotators)).all()
    }
    new: list[Row] = []
    ids: dict[str, str] = {}
    for row in archived.get("annotators", ()):
        annotator_id = here.get((row["issuer"], row["subject"]))
        if annotator_id is None:
            new.append(row)
        elif annotator_id != row["annotator_id"]:
            ids[row["annotator_id"]] = annotator_id
    adapted = {name: [_renamed(row, ids) for row in rows] for name, rows in archived.items()} if ids else dict(archived)
    return {**adapted, "annotators": new}


def _renamed(row: Row, ids: dict[str, str]) -> Row:
    renamed = dict(row)
    for name in ("annotator_id", "reviewed_by"):
        if renamed.get(name) in ids:
            renamed[name] = ids[renamed[name]]
    if isinstance(renamed.get("record"), dict):  # ids are UUIDs, so they stand for nothing else
        text = json.dumps(renamed["record"])
        for old, new in ids.items():
            text = text.replace(old, new)
        renamed["record"] = json.loads(text)
    return renamed


def _read_back(connection: sa.Connection, project_id: str) -> None:
    uow, project = UnitOfWork(connection, database_now(connection)), ProjectId(project_id)
    uow.projects.get(project)
    uow.seed_cases.all(project)
    everything = 10**9
    uow.cases.page(project, CaseFilter(), ranked=False, after=(-1, -1), limit=everything)
    uow.submissions.page(project, SubmissionFilter(), after=-1, limit=everything)
    for round in uow.rounds.all(project):
        uow.rounds.snapshot(project, round.number)
    uow.predictions.labels(project)
    uow.ledger.all(project)
    uow.events.after(project, -1, limit=everything)
    uow.purges.page(project, before=None, limit=everything)
