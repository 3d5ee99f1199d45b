"""What the repositories share: a connection, the transaction's moment, and errors for what is not there."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from rekindle.errors import NotFound, quoted_id

from rekindle_scheduler.domain.events import Occurrence
from rekindle_scheduler.state.tables import projects


@dataclass(frozen=True, slots=True)
class Transaction:
    """What each repository works on."""

    connection: sa.Connection
    #: Moment of the transaction, by the database's clock.
    now: datetime
    #: Occurrences so far, for metrics.
    occurrences: list[Occurrence] = field(default_factory=list[Occurrence])


class Repository:
    """Rows of one noun."""

    def __init__(self, transaction: Transaction) -> None:
        self._connection = transaction.connection
        self._now = transaction.now
        self._occurrences = transaction.occurrences

    def _one(self, statement: sa.Select[Any], noun: str, name: str | int) -> sa.Row[Any]:
        """The statement's only row. NotFound, with a reason by the noun, where there is none."""
        row = self._connection.execute(statement).one_or_none()
        if row is None:
            quoted = quoted_id(name) if isinstance(name, str) else name
            raise NotFound(
                f"{noun} {quoted} does not exist, or not in this project", reason=f"{noun.upper()}_NOT_FOUND"
            )
        return row

    def _take_number(self, project_id: str, counter: str) -> int:
        """The next number of one of the project's counters; holds the project's row until the end."""
        column = projects.c[counter]
        statement = (
            sa.update(projects)
            .where(projects.c.project_id == project_id)
            .values({column: column + 1})
            .returning(column)
        )
        return int(self._connection.execute(statement).scalar_one())
