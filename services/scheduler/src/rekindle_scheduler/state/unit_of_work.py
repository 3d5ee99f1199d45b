"""The scheduler's state in SQLite or PostgreSQL: units of work over the repositories."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime

import sqlalchemy as sa
from rekindle_servicekit.database import make_engine, prepare_schema, read, wipe, write
from rekindle_servicekit.idempotency import Requests

from rekindle_scheduler.domain.events import Occurrence
from rekindle_scheduler.state.cases import Cases
from rekindle_scheduler.state.drafts import Drafts
from rekindle_scheduler.state.history import Annotators, Events
from rekindle_scheduler.state.leases import Leases
from rekindle_scheduler.state.ledger import Ledger
from rekindle_scheduler.state.outbox import Outbox
from rekindle_scheduler.state.predictions import Predictions
from rekindle_scheduler.state.projects import Projects, SeedCases
from rekindle_scheduler.state.purges import Purges
from rekindle_scheduler.state.rounds import Rounds
from rekindle_scheduler.state.rows import Transaction
from rekindle_scheduler.state.sessions import Sessions
from rekindle_scheduler.state.submissions import Submissions
from rekindle_scheduler.state.tallies import Tallies

#: Function that is told what each committed transaction did.
Observer = Callable[[Sequence[Occurrence]], None]
Clock = Callable[[sa.Connection], datetime]


def database_now(connection: sa.Connection) -> datetime:
    """The moment by the database's clock, so that all schedulers agree on what has expired."""
    if connection.dialect.name == "sqlite":
        text = connection.exec_driver_sql("SELECT strftime('%Y-%m-%dT%H:%M:%f', 'now')").scalar_one()
        return datetime.fromisoformat(str(text)).replace(tzinfo=UTC)
    moment: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return moment.astimezone(UTC)


class UnitOfWork:
    """One transaction."""

    def __init__(self, connection: sa.Connection, now: datetime) -> None:
        transaction = Transaction(connection, now)
        self.now = now
        self.occurrences = transaction.occurrences
        self.requests = Requests(connection, now)
        self.annotators = Annotators(transaction)
        self.projects = Projects(transaction)
        self.seed_cases = SeedCases(transaction)
        self.cases = Cases(transaction)
        self.leases = Leases(transaction)
        self.submissions = Submissions(transaction)
        self.outbox = Outbox(transaction)
        self.drafts = Drafts(transaction)
        self.sessions = Sessions(transaction)
        self.rounds = Rounds(transaction)
        self.predictions = Predictions(transaction)
        self.purges = Purges(transaction)
        self.tallies = Tallies(transaction)
        self.ledger = Ledger(transaction)
        self.events = Events(transaction)


class State:
    """The scheduler's database. Units of work commit at the end and roll back on an exception."""

    def __init__(self, engine: sa.Engine, clock: Clock = database_now, observe: Observer | None = None) -> None:
        self._engine = engine
        self._clock = clock
        self._observe = observe

    def wipe(self) -> None:
        """Leave no trace of what was removed in the files of an embedded database."""
        """Leave no trace of what was removed in the files of an embedded database."""
        wipe(self._engine)

    @property
    def engine(self) -> sa.Engine:
        """For what reads the database as a whole."""
        return self._engine

    @contextmanager
    def write(self) -> Generator[UnitOfWork]:
        with write(self._engine) as connection:
            uow = UnitOfWork(connection, self._clock(connection))
            yield uow
        # Only what was committed has happened.
        if self._observe is not None:
            self._observe(uow.occurrences)

    @contextmanager
    def read(self) -> Generator[UnitOfWork]:
        with read(self._engine) as connection:
            yield UnitOfWork(connection, self._clock(connection))

    def close(self) -> None:
        """Give the connections back."""
        self._engine.dispose()


def open_state(
    url: str, clock: Clock = database_now, *, migrates: bool = True, observe: Observer | None = None
) -> State:
    """The store at `url`, its schema brought to the newest revision; DependencyUnavailable where it may not be."""
    engine = make_engine(url)
    prepare_schema(engine, "rekindle_scheduler:migrations", migrates=migrates)
    return State(engine, clock, observe)
