"""The trainer's unit of work on SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from rekindle.errors import AlreadyExists, VersionConflict
from rekindle.vocabulary import RunState
from rekindle_servicekit import database
from rekindle_servicekit.idempotency import Requests
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from rekindle_trainer.domain.limits import TrainingLimits, gpu_seconds
from rekindle_trainer.domain.metrics import Metric
from rekindle_trainer.domain.runs import ENDED, Attempt, AttemptState, Run, waiting_since
from rekindle_trainer.state.rows import (
    attempt_record,
    attempt_row,
    limits_record,
    limits_row,
    metric_record,
    metric_row,
    run_changes,
    run_record,
    run_row,
)
from rekindle_trainer.state.tables import attempts, runs, training_limits
from rekindle_trainer.state.tables import metrics as metric_rows

MIGRATIONS = "rekindle_trainer:migrations"
#: Columns that may name an example.
_TEXTS = {runs: ("spec", "result", "reason"), attempts: ("reason",)}
#: Columns that others may have written since an attempt was read.
_SEEN = ("handle", "began_at", "seen_at", "is_at_work", "worked_seconds")
#: Arbitrary; supervisors on one PostgreSQL database claim runs in turn under it.
_QUEUE_LOCK = 0x52454B54


class State:
    """Runs of one database whose schema is up to date."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    @contextmanager
    def read(self) -> Generator[UnitOfWork]:
        """A unit of work on one consistent state."""
        with database.read(self.engine) as connection:
            yield UnitOfWork(connection, locks=False)

    @contextmanager
    def write(self) -> Generator[UnitOfWork]:
        """A unit of work that is kept whole: rolled back on any exception."""
        with database.write(self.engine) as connection:
            yield UnitOfWork(connection, locks=True)

    def wipe(self) -> None:
        """Leave no trace of redacted texts in the files of an embedded database."""
        database.wipe(self.engine)


class UnitOfWork:
    """Runs, attempts, metrics, limits and answered requests as of one moment, in one transaction."""

    def __init__(self, connection: sa.Connection, *, locks: bool) -> None:
        self._connection = connection
        #: Whether what is read is kept from others until the end; SQLite has one writer anyhow.
        self._locks = locks and connection.dialect.name == "postgresql"
        self._now: datetime | None = None

    @property
    def now(self) -> datetime:
        """The transaction's moment by the database's clock, in UTC."""
        if self._now is None:
            self._now = database.database_now(self._connection)
        return self._now

    @property
    def requests(self) -> Requests:
        """Requests that were answered."""
        return Requests(self._connection, self.now)

    def find_run(self, run_id: str) -> Run | None:
        query = sa.select(runs).where(runs.c.run_id == run_id)
        row = self._connection.execute(query.with_for_update() if self._locks else query).one_or_none()
        return None if row is None else self._run(row)

    def add_run(self, run: Run) -> None:
        try:
            self._connection.execute(sa.insert(runs).values(**run_row(run), version=run.version))
        except IntegrityError:
            raise AlreadyExists("this run_id was taken at this moment: send the request again") from None

    def update_run(self, run: Run) -> Run:
        """Store a changed run, whose version grows; VersionConflict where `run` was not the newest."""
        newest = sa.and_(runs.c.run_id == run.run_id, runs.c.version == run.version)
        changed = sa.update(runs).where(newest).values(**run_changes(run), version=run.version + 1)
        if self._connection.execute(changed).rowcount != 1:
            raise _changed_meanwhile(run.run_id)
        stored = self.find_run(run.run_id)
        assert stored is not None
        return stored

    def page_runs(self, project_id: str, limit: int, before: tuple[datetime, str] | None) -> list[Run]:
        """Runs of a project, newest first, that come after the one with this (created_at, run_id)."""
        query = sa.select(runs).where(runs.c.project_id == project_id)
        if before is not None:
            created_at, run_id = before
            older = runs.c.created_at < created_at
            query = query.where(older | ((runs.c.created_at == created_at) & (runs.c.run_id < run_id)))
        return self._runs(query.order_by(runs.c.created_at.desc(), runs.c.run_id.desc()).limit(limit))

    def runs_after(self, run_id: str, limit: int) -> list[Run]:
        """Runs of all projects in the order of their ids, from behind this one on."""
        return self._runs(sa.select(runs).where(runs.c.run_id > run_id).order_by(runs.c.run_id).limit(limit))

    def open_runs(self) -> list[Run]:
        """Runs that have not ended, oldest first."""
        query = sa.select(runs).where(runs.c.state.not_in([state.value for state in ENDED]))
        return self._runs(query.order_by(runs.c.created_at, runs.c.run_id))

    def count_runs(self) -> dict[RunState, int]:
        """Runs of all projects by state."""
        rows = self._connection.execute(sa.select(runs.c.state, sa.func.count()).group_by(runs.c.state)).all()
        return {RunState(state): count for state, count in rows}

    def newest_success(self) -> Run | None:
        """The run that succeeded last, of whatever project."""
        query = sa.select(runs).where(runs.c.state == RunState.SUCCEEDED.value).order_by(runs.c.ended_at.desc())
        return next(iter(self._runs(query.limit(1))), None)

    def lock_queue(self) -> None:
        """Let nobody else claim a run until this transaction has ended."""
        if self._locks:
            self._connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_QUEUE_LOCK)))

    def find_attempt(self, run_id: str, number: int) -> Attempt | None:
        row = self._connection.execute(sa.select(attempts).where(_attempt(run_id, number))).one_or_none()
        return None if row is None else attempt_record(row)

    def add_attempt(self, attempt: Attempt) -> None:
        try:
            self._connection.execute(sa.insert(attempts).values(attempt_row(attempt)))
        except IntegrityError:
            raise _changed_meanwhile(attempt.run_id) from None

    def end_attempt(self, attempt: Attempt) -> None:
        """Store the end of an attempt; VersionConflict where it had ended before."""
        ended = {key: value for key, value in attempt_row(attempt).items() if key not in _SEEN}
        still_open = _attempt(attempt.run_id, attempt.number) & (attempts.c.state == AttemptState.OPEN.value)
        if self._connection.execute(sa.update(attempts).where(still_open).values(ended)).rowcount != 1:
            raise _changed_meanwhile(attempt.run_id)

    def record_handle(self, run_id: str, number: int, handle: str) -> bool:
        """Note how the attempt's process is found again; False where it has another one or has ended."""
        free = sa.or_(attempts.c.handle.is_(None), attempts.c.handle == handle)
        still_open = attempts.c.state == AttemptState.OPEN.value
        noted = sa.update(attempts).where(_attempt(run_id, number), free, still_open).values(handle=handle)
        return self._connection.execute(noted).rowcount == 1

    def record_sight(self, attempt: Attempt, *, at_work: bool, at: datetime | None = None) -> None:
        """Note whether the attempt's process is at work now, unless somebody has noted it since `attempt` was read.

        `at` is for another moment than now.
        """
        row = attempt_row(attempt.see(attempt.moment(at, self.now), at_work=at_work))
        seen = {name: row[name] for name in ("began_at", "seen_at", "is_at_work", "worked_seconds")}
        as_read = _attempt(attempt.run_id, attempt.number) & attempts.c.seen_at.is_not_distinct_from(attempt.seen_at)
        self._connection.execute(sa.update(attempts).where(as_read).values(seen))

    def find_limits(self, project_id: str) -> TrainingLimits:
        """Without any where nobody has limited the project."""
        query = sa.select(training_limits).where(training_limits.c.project_id == project_id)
        row = self._connection.execute(query).one_or_none()
        return TrainingLimits() if row is None else limits_record(row)

    def set_limits(self, project_id: str, limits: TrainingLimits) -> None:
        """Unless newer ones are there."""
        row = limits_row(project_id, limits)
        dialect = postgresql if self._connection.dialect.name == "postgresql" else sqlite
        insert = dialect.insert(training_limits).values(row)
        older = training_limits.c.version < limits.version
        changed = {name: row[name] for name in ("version", "record")}
        self._connection.execute(insert.on_conflict_do_update(index_elements=["project_id"], set_=changed, where=older))

    def gpu_seconds(self, project_id: str) -> float:
        """Spent by all runs of a project until now."""
        own = sa.select(attempts).join(runs, runs.c.run_id == attempts.c.run_id)
        return gpu_seconds(self._attempts(own.where(runs.c.project_id == project_id)), self.now)

    def last_metric(self, run_id: str, attempt: int | None = None) -> Metric | None:
        """The newest metric of the run, or of one attempt."""
        query = sa.select(metric_rows).where(metric_rows.c.run_id == run_id)
        if attempt is not None:
            query = query.where(metric_rows.c.attempt == attempt)
        row = self._connection.execute(query.order_by(metric_rows.c.cursor.desc()).limit(1)).one_or_none()
        return None if row is None else metric_record(row)

    def add_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """VersionConflict where somebody else has stored one of them."""
        if not metrics:
            return
        try:
            self._connection.execute(sa.insert(metric_rows), [metric_row(run_id, metric) for metric in metrics])
        except IntegrityError:
            raise _changed_meanwhile(run_id) from None

    def metrics_after(self, run_id: str, cursor: int, limit: int) -> list[Metric]:
        query = sa.select(metric_rows).where(metric_rows.c.run_id == run_id, metric_rows.c.cursor > cursor)
        return [
            metric_record(row) for row in self._connection.execute(query.order_by(metric_rows.c.cursor).limit(limit))
        ]

    def runs_of(self, project_id: str) -> list[Run]:
        """All runs of a project."""
        query = sa.select(runs).where(runs.c.project_id == project_id)
        return self._runs(query.with_for_update() if self._locks else query)

    def redact(self, project_id: str, stand_ins: Mapping[str, str]) -> None:
        """Replace texts wherever a run or an attempt of the project has them."""
        own = sa.select(runs.c.run_id).where(runs.c.project_id == project_id)
        for table, names in _TEXTS.items():
            keys = list(table.primary_key.columns)
            for row in self._connection.execute(sa.select(table).where(table.c.run_id.in_(own))).all():
                values = {name: getattr(row, name) for name in names}
                redacted = {name: _redacted(value, stand_ins) for name, value in values.items()}
                if redacted != values:
                    same = sa.and_(*(column == getattr(row, column.name) for column in keys))
                    # A change of the run as it was read before is refused.
                    newer = {"version": row.version + 1} if table is runs else {}
                    self._connection.execute(sa.update(table).where(same).values(**redacted, **newer))

    def _runs(self, query: sa.Select[Any]) -> list[Run]:
        rows = self._connection.execute(query).all()
        return [self._run(row) for row in rows]

    def _run(self, row: sa.Row[Any]) -> Run:
        own = self._attempts(sa.select(attempts).where(attempts.c.run_id == row.run_id))
        known = run_record(row, self.last_metric(row.run_id))
        return replace(
            known,
            gpu_seconds=gpu_seconds(own, self.now),
            waits_since=None if known.has_ended else waiting_since(known.created_at, own),
            limits_version=self.find_limits(row.project_id).version,
        )

    def _attempts(self, query: sa.Select[Any]) -> list[Attempt]:
        return [attempt_record(row) for row in self._connection.execute(query)]


def _attempt(run_id: str, number: int) -> sa.ColumnElement[bool]:
    return sa.and_(attempts.c.run_id == run_id, attempts.c.number == number)


def _changed_meanwhile(run_id: str) -> VersionConflict:
    return VersionConflict(f"run {run_id} was changed by somebody else meanwhile: read it again")


def _redacted(value: str | None, stand_ins: Mapping[str, str]) -> str | None:
    for digest, stand_in in stand_ins.items():
        value = None if value is None else value.replace(digest, stand_in)
    return value
