"""The scheduler's state in SQLite or PostgreSQL: units of work over the repositories."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import cached_property

import sqlalchemy as sa
from rekindle_servicekit.database import make_engine, migrate, read, write

from rekindle_scheduler.adapters.sql.cases import SqlCases
from rekindle_scheduler.adapters.sql.history import SqlAnnotators, SqlEvents, SqlRequests
from rekindle_scheduler.adapters.sql.leases import SqlLeases
from rekindle_scheduler.adapters.sql.ledger import SqlLedger
from rekindle_scheduler.adapters.sql.predictions import SqlPredictions
from rekindle_scheduler.adapters.sql.projects import SqlProjects, SqlSeedCases
from rekindle_scheduler.adapters.sql.rounds import SqlRounds
from rekindle_scheduler.adapters.sql.rows import Transaction
from rekindle_scheduler.adapters.sql.submissions import SqlSubmissions
from rekindle_scheduler.adapters.sql.tallies import SqlTallies

Clock = Callable[[sa.Connection], datetime]


def database_now(connection: sa.Connection) -> datetime:
    """The moment by the database's clock, so that all schedulers agree on what has expired."""
    if connection.dialect.name == "sqlite":
        text = connection.exec_driver_sql("SELECT strftime('%Y-%m-%dT%H:%M:%f', 'now')").scalar_one()
        return datetime.fromisoformat(str(text)).replace(tzinfo=UTC)
    moment: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return moment.astimezone(UTC)


class SqlUnitOfWork:
    """One transaction."""

    def __init__(self, connection: sa.Connection, now: datetime) -> None:
        self.now = now
        self._transaction = Transaction(connection, now)

    @cached_property
    def requests(self) -> SqlRequests:
        return SqlRequests(self._transaction)

    @cached_property
    def annotators(self) -> SqlAnnotators:
        return SqlAnnotators(self._transaction)

    @cached_property
    def projects(self) -> SqlProjects:
        return SqlProjects(self._transaction)

    @cached_property
    def seed_cases(self) -> SqlSeedCases:
        return SqlSeedCases(self._transaction)

    @cached_property
    def cases(self) -> SqlCases:
        return SqlCases(self._transaction)

    @cached_property
    def leases(self) -> SqlLeases:
        return SqlLeases(self._transaction)

    @cached_property
    def submissions(self) -> SqlSubmissions:
        return SqlSubmissions(self._transaction)

    @cached_property
    def rounds(self) -> SqlRounds:
        return SqlRounds(self._transaction)

    @cached_property
    def predictions(self) -> SqlPredictions:
        return SqlPredictions(self._transaction)

    @cached_property
    def tallies(self) -> SqlTallies:
        return SqlTallies(self._transaction)

    @cached_property
    def ledger(self) -> SqlLedger:
        return SqlLedger(self._transaction)

    @cached_property
    def events(self) -> SqlEvents:
        return SqlEvents(self._transaction)


class SqlStore:
    """Units of work on one database."""

    def __init__(self, engine: sa.Engine, clock: Clock = database_now) -> None:
        self._engine = engine
        self._clock = clock

    @contextmanager
    def write(self) -> Generator[SqlUnitOfWork]:
        with write(self._engine) as connection:
            yield SqlUnitOfWork(connection, self._clock(connection))

    @contextmanager
    def read(self) -> Generator[SqlUnitOfWork]:
        with read(self._engine) as connection:
            yield SqlUnitOfWork(connection, self._clock(connection))

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()


def open_store(url: str, clock: Clock = database_now) -> SqlStore:
    """The store at `url`, its schema brought to the newest revision."""
    engine = make_engine(url)
    migrate(engine, "rekindle_scheduler:migrations")
    return SqlStore(engine, clock)
