"""The scheduler's state in SQLite or PostgreSQL: units of work over the repositories."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import sqlalchemy as sa
from rekindle_servicekit.database import make_engine, prepare_schema, read, wipe, write

from rekindle_scheduler.adapters.sql.cases import SqlCases
from rekindle_scheduler.adapters.sql.drafts import SqlDrafts
from rekindle_scheduler.adapters.sql.history import SqlAnnotators, SqlEvents, SqlRequests
from rekindle_scheduler.adapters.sql.leases import SqlLeases
from rekindle_scheduler.adapters.sql.ledger import SqlLedger
from rekindle_scheduler.adapters.sql.predictions import SqlPredictions
from rekindle_scheduler.adapters.sql.projects import SqlProjects, SqlSeedCases
from rekindle_scheduler.adapters.sql.publications import SqlPublications
from rekindle_scheduler.adapters.sql.purges import SqlPurges
from rekindle_scheduler.adapters.sql.rounds import SqlRounds
from rekindle_scheduler.adapters.sql.rows import Transaction
from rekindle_scheduler.adapters.sql.sessions import SqlSessions
from rekindle_scheduler.adapters.sql.submissions import SqlSubmissions
from rekindle_scheduler.adapters.sql.tallies import SqlTallies
from rekindle_scheduler.domain.events import Occurrence

#: Told of what each committed transaction did.
Observer = Callable[[Sequence[Occurrence]], None]
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
        transaction = Transaction(connection, now)
        self.now = now
        self.occurrences = transaction.occurrences
        self.requests = SqlRequests(transaction)
        self.annotators = SqlAnnotators(transaction)
        self.projects = SqlProjects(transaction)
        self.seed_cases = SqlSeedCases(transaction)
        self.cases = SqlCases(transaction)
        self.leases = SqlLeases(transaction)
        self.submissions = SqlSubmissions(transaction)
        self.publications = SqlPublications(transaction)
        self.drafts = SqlDrafts(transaction)
        self.sessions = SqlSessions(transaction)
        self.rounds = SqlRounds(transaction)
        self.predictions = SqlPredictions(transaction)
        self.purges = SqlPurges(transaction)
        self.tallies = SqlTallies(transaction)
        self.ledger = SqlLedger(transaction)
        self.events = SqlEvents(transaction)


class SqlStore:
    """Units of work on one database."""

    def __init__(self, engine: sa.Engine, clock: Clock = database_now, observe: Observer | None = None) -> None:
        self._engine = engine
        self._clock = clock
        self._observe = observe

    def wipe(self) -> None:
        wipe(self._engine)

    @property
    def engine(self) -> sa.Engine:
        """For what reads the database as a whole."""
        return self._engine

    @contextmanager
    def write(self) -> Generator[SqlUnitOfWork]:
        with write(self._engine) as connection:
            uow = SqlUnitOfWork(connection, self._clock(connection))
            yield uow
        # Only what was committed has happened.
        if self._observe is not None:
            self._observe(uow.occurrences)

    @contextmanager
    def read(self) -> Generator[SqlUnitOfWork]:
        with read(self._engine) as connection:
            yield SqlUnitOfWork(connection, self._clock(connection))

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()


def open_store(
    url: str, clock: Clock = database_now, *, migrates: bool = True, observe: Observer | None = None
) -> SqlStore:
    """The store at `url`, its schema brought to the newest revision; DependencyUnavailable where it may not be."""
    engine = make_engine(url)
    prepare_schema(engine, "rekindle_scheduler:migrations", migrates=migrates)
    return SqlStore(engine, clock, observe)
