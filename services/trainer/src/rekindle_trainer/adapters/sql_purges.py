"""Striking erased volumes out of the trainer's rows."""

from __future__ import annotations

from collections.abc import Collection, Generator, Mapping
from contextlib import contextmanager

import sqlalchemy as sa
from rekindle_servicekit import database, idempotency
from rekindle_servicekit.principal import Principal

from rekindle_trainer.adapters.sql import SqlTransaction
from rekindle_trainer.adapters.tables import attempts, runs
from rekindle_trainer.domain.runs import WAITING, Run

#: Columns that may name an example.
_TEXTS = {runs: ("spec", "result", "reason"), attempts: ("reason",)}


class SqlPurges:
    """ports.PurgeState over a database."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    @contextmanager
    def purge(self) -> Generator[SqlPurge]:
        with database.write(self._engine) as connection:
            yield SqlPurge(connection, locks=True)

    def wipe(self) -> None:
        database.wipe(self._engine)


class SqlPurge(SqlTransaction):
    """One transaction that strikes."""

    def runs_of(self, project_id: str) -> list[Run]:
        query = sa.select(runs).where(runs.c.project_id == project_id)
        return self._runs(query.with_for_update() if self._locks else query)

    def strike(self, project_id: str, stand_ins: Mapping[str, str]) -> None:
        own = sa.select(runs.c.run_id).where(runs.c.project_id == project_id)
        for table, names in _TEXTS.items():
            keys = list(table.primary_key.columns)
            for row in self._connection.execute(sa.select(table).where(table.c.run_id.in_(own))).all():
                values = {name: getattr(row, name) for name in names}
                struck = {name: _struck(value, stand_ins) for name, value in values.items()}
                if struck != values:
                    is_it = sa.and_(*(column == getattr(row, column.name) for column in keys))
                    # Whoever has read the run before must read it again.
                    newer = {"version": row.version + 1} if table is runs else {}
                    self._connection.execute(sa.update(table).where(is_it).values(**struck, **newer))

    def cancel(self, run_ids: Collection[str]) -> None:
        for run_id in run_ids:
            run = self.find_run(run_id)
            assert run is not None
            self.update_run(run.cancel(self.now) if run.state in WAITING else run.request_cancel())

    def answer_to(self, principal: Principal, method: str, request_id: str, request_digest: str) -> bytes | None:
        return idempotency.remember(self._connection, principal, method, request_id, request_digest)

    def answer(self, principal: Principal, method: str, request_id: str, request_digest: str, response: bytes) -> None:
        idempotency.store(self._connection, principal, method, request_id, request_digest, response, now=self.now)


def _struck(value: str | None, stand_ins: Mapping[str, str]) -> str | None:
    for digest, stand_in in stand_ins.items():
        value = None if value is None else value.replace(digest, stand_in)
    return value
