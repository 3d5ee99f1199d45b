"""Inference's state in SQLite or PostgreSQL: units of work over the repositories."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import datetime

import sqlalchemy as sa
from rekindle.errors import DependencyUnavailable
from rekindle_servicekit.database import database_now, make_engine, prepare_schema, read, wipe, write
from rekindle_servicekit.idempotency import Requests
from sqlalchemy.exc import IntegrityError

from rekindle_inference.state.limits import Limits
from rekindle_inference.state.models import Models, Predictions
from rekindle_inference.state.purges import Purges
from rekindle_inference.state.results import Results
from rekindle_inference.state.rows import Transaction
from rekindle_inference.state.segmentations import Segmentations
from rekindle_inference.state.uploads import Uploads
from rekindle_inference.state.volumes import Receipts, Volumes

#: How a transaction learns what time it is.
Clock = Callable[[sa.Connection], datetime]


class UnitOfWork:
    """One transaction: all of it or nothing. Repositories answer None for what does not exist in a project."""

    def __init__(self, connection: sa.Connection, now: datetime) -> None:
        transaction = Transaction(connection, now)
        #: Moment by the database's clock, so that all processes agree on what has expired.
        self.now = now
        self.requests = Requests(connection, now)
        self.volumes = Volumes(transaction)
        self.receipts = Receipts(transaction)
        self.models = Models(transaction)
        self.predictions = Predictions(transaction)
        self.uploads = Uploads(transaction)
        self.segmentations = Segmentations(transaction)
        self.results = Results(transaction)
        self.limits = Limits(transaction)
        self.purges = Purges(transaction)


class State:
    """The service's database; its schema is brought up to date when it is opened, unless another step does that."""

    def __init__(self, url: str, *, clock: Clock = database_now, migrates: bool = True) -> None:
        self._engine = make_engine(url)
        self._clock = clock
        prepare_schema(self._engine, "rekindle_inference:migrations", migrates=migrates)

    @property
    def engine(self) -> sa.Engine:
        """For what reads the database as a whole."""
        return self._engine

    @contextmanager
    def read(self) -> Generator[UnitOfWork]:
        """One consistent state of everything."""
        with read(self._engine) as connection:
            yield UnitOfWork(connection, self._clock(connection))

    @contextmanager
    def write(self) -> Generator[UnitOfWork]:
        """DependencyUnavailable where another writer got in between: the caller may try again."""
        try:
            with write(self._engine) as connection:
                yield UnitOfWork(connection, self._clock(connection))
        except IntegrityError as error:
            raise DependencyUnavailable(
                "the same thing was written at this moment by another call: try again",
                reason="CONCURRENT_WRITE",
                retry_after_s=0.1,
            ) from error

    def wipe(self) -> None:
        """Leave no trace of what was removed in the files of an embedded database."""
        wipe(self._engine)

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()
