"""What the repositories share: a connection, the transaction's moment, and records as rows."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cache
from typing import Any, TypeVar, get_type_hints

import sqlalchemy as sa
from rekindle_servicekit.json_codec import decode, encode

T = TypeVar("T")

#: Ids in one statement; more would exceed what SQLite takes.
_IDS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Transaction:
    """What each repository works on."""

    connection: sa.Connection
    #: Moment by the database's clock.
    now: datetime


class Repository:
    """Rows of one noun."""

    def __init__(self, transaction: Transaction) -> None:
        self._connection = transaction.connection
        self._now = transaction.now

    def _insert(self, table: sa.Table, row: Mapping[str, Any]) -> None:
        self._connection.execute(sa.insert(table).values(row))

    def _exists(self, query: sa.Select[Any]) -> bool:
        return self._connection.execute(query.limit(1)).first() is not None

    def _mappings(self, query: sa.Select[*tuple[Any, ...]]) -> list[dict[str, Any]]:
        return [dict(row) for row in self._connection.execute(query).mappings()]


def row_of(table: sa.Table, record: Any, **given: Any) -> dict[str, Any]:
    """A record as a row: JSON columns hold its parts encoded, `given` replaces what is kept in another way."""
    return {
        column.name: given[column.name] if column.name in given else _stored(column, getattr(record, column.name))
        for column in table.c
    }


def record_of(kind: type[T], row: Mapping[str, Any], **given: Any) -> T:
    """The record that a row holds; `given` replaces what is kept in another way."""
    values = {
        name: row[name] if isinstance(row[name], datetime) else decode(hint, row[name])
        for name, hint in _hints(kind).items()
        if name in row and name not in given
    }
    return kind(**values, **given)


def in_parts(ids: Iterable[Any]) -> Generator[list[Any]]:
    """Lists of ids that are short enough for one statement."""
    listed = list(ids)
    for first in range(0, len(listed), _IDS_AT_ONCE):
        yield listed[first : first + _IDS_AT_ONCE]


def older_than(
    place: tuple[datetime, str], moment: sa.ColumnElement[datetime], row_id: sa.ColumnElement[str]
) -> sa.ColumnElement[bool]:
    """Rows behind a place in a list that is ordered by moment and id, newest first."""
    created_at, place_id = place
    return sa.or_(moment < created_at, sa.and_(moment == created_at, row_id < place_id))


def _stored(column: sa.Column[Any], value: Any) -> Any:
    return encode(value) if isinstance(column.type, sa.JSON) else value


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
