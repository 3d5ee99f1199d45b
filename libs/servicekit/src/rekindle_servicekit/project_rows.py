"""A project's rows as JSON lines and back, over any service's tables."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any

import sqlalchemy as sa
from rekindle.errors import AlreadyExists, InvalidInput
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from rekindle_servicekit.archive import bad_archive
from rekindle_servicekit.database import UtcDateTime

Row = dict[str, Any]
_ROWS_AT_ONCE = 500
_MAX_LINE_BYTES = 64 * 1024 * 1024
#: An id of this service's own, of which keys of objects are made.
_OWN_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,255}")
#: Any, by which clients name files.
_ID = re.compile(r"(?!\.)[^/\\\x00-\x1f]{0,255}")


def _unchanged(row: Row) -> Row | None:
    return row


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectTable:
    """A table whose rows belong to projects."""

    table: sa.Table
    #: The condition under which a row belongs to the project.
    of_project: Callable[[str], sa.ColumnElement[bool]]
    #: Columns to sort by, parents before children; by default the primary key.
    order_by: tuple[sa.ColumnElement[Any], ...] = ()
    #: Function that makes the archived row; None leaves the row out. Work under way here is not under way elsewhere.
    archived: Callable[[Row], Row | None] = _unchanged
    #: Columns that only mean something here, and what they get where the row is taken in.
    filled: Mapping[str, Callable[[sa.Connection], Any]] = field(default_factory=dict)
    #: Column and the table and column of the archive that it must be found in, for rows without a project's id.
    parent: tuple[str, str, str] | None = None

    @property
    def columns(self) -> dict[str, sa.Column[Any]]:
        """Those that are archived, by name."""
        return {column.name: column for column in self.table.columns if column.name not in self.filled}


def dump_rows(connection: sa.Connection, what: ProjectTable, project_id: str, target: IO[bytes]) -> list[Row]:
    """Write the project's rows; they are returned too, as the archive has them."""
    order = what.order_by or tuple(what.table.primary_key.columns)
    query = sa.select(*what.columns.values()).where(what.of_project(project_id)).order_by(*order)
    kept: list[Row] = []
    for found in connection.execute(query).mappings():
        row = what.archived(dict(found))
        if row is None:
            continue
        encoded = {name: _encoded(value) for name, value in row.items()}
        target.write(json.dumps(encoded, sort_keys=True, separators=(",", ":")).encode() + b"\n")
        kept.append(row)
    return kept


def parse_rows(stream: IO[bytes], what: ProjectTable, project_id: str) -> list[Row]:
    """The rows of a table in an archive, each value of its column's kind. InvalidInput (BAD_ARCHIVE, NEWER_ARCHIVE)."""
    return [_row(what, project_id, line) for line in _lines(stream)]


def insert_rows(connection: sa.Connection, what: ProjectTable, rows: Sequence[Row]) -> None:
    """Add rows that are not there yet. AlreadyExists; InvalidInput where they do not fit together."""
    filled = {name: fill(connection) for name, fill in what.filled.items()}
    for first in range(0, len(rows), _ROWS_AT_ONCE):
        part = [{**row, **filled} for row in rows[first : first + _ROWS_AT_ONCE]]
        try:
            connection.execute(sa.insert(what.table), part)
        except IntegrityError as error:
            raise AlreadyExists(
                "a part of the project is here already, or the archive's rows do not fit together: "
                "import it where none of it is",
                reason="PROJECT_EXISTS",
            ) from error
        except (SQLAlchemyError, TypeError, ValueError) as error:
            raise bad_archive(f"rows of {what.table.name} cannot be stored") from error


def check_parents(what: ProjectTable, rows: Sequence[Row], tables: Mapping[str, Sequence[Row]]) -> None:
    """InvalidInput where a row belongs to nothing of the archive."""
    if what.parent is not None:
        column, parent, parent_column = what.parent
        known = {row[parent_column] for row in tables.get(parent, ())}
        if any(row[column] not in known for row in rows):
            raise bad_archive(f"rows of {what.table.name} belong to nothing in it")


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    while line := stream.readline(_MAX_LINE_BYTES):
        if not line.endswith(b"\n"):
            raise bad_archive("a row is too long or cut off")
        yield line


def _row(what: ProjectTable, project_id: str, line: bytes) -> Row:
    name = what.table.name
    try:
        raw: dict[str, Any] = json.loads(line)
        unknown = set(raw) - set(what.columns)
    except (ValueError, TypeError, RecursionError):
        raise bad_archive(f"a row of {name} is no JSON object") from None
    if unknown:
        raise InvalidInput(
            f"the archive has columns of {name} that this service does not know ({', '.join(sorted(unknown)[:5])}): "
            "bring the service up to date",
            reason="NEWER_ARCHIVE",
        )
    row: Row = {}
    for column in what.columns.values():
        if column.name in raw:
            row[column.name] = _decoded(column, raw[column.name], name)
        elif not column.nullable and column.server_default is None:
            raise bad_archive(f"a row of {name} lacks {column.name}")
    if "project_id" in row and row["project_id"] != project_id:
        raise bad_archive(f"a row of {name} belongs to another project")
    return row


def _encoded(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, (bytes, memoryview)):
        return base64.b64encode(bytes(value)).decode()
    return value


def _decoded(column: sa.Column[Any], value: Any, table: str) -> Any:
    kind = column.type
    try:
        if value is None:
            if column.nullable or isinstance(kind, sa.JSON):
                return None
        elif isinstance(kind, UtcDateTime):
            moment = datetime.fromisoformat(value)
            if moment.tzinfo is not None:
                return moment
        elif isinstance(kind, sa.LargeBinary):
            return base64.b64decode(value, validate=True)
        elif isinstance(kind, sa.JSON) or (_fits(kind, value) and _can_be(column, value)):
            return value
    except (ValueError, TypeError):
        pass
    raise bad_archive(f"a row of {table} has something else in {column.name} than belongs there")


def _can_be(column: sa.Column[Any], value: Any) -> bool:
    """Whether a text that is an id leads nowhere as the name of a file or as a part of an object's key."""
    if not column.name.endswith("_id") or not isinstance(value, str):
        return True
    pattern = _OWN_ID if column.primary_key else _ID
    return pattern.fullmatch(value) is not None and ".." not in value


def _fits(kind: Any, value: Any) -> bool:
    if isinstance(kind, sa.Boolean):
        return isinstance(value, bool)
    if isinstance(kind, sa.Integer):
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 2**63
    if isinstance(kind, (sa.Numeric, sa.Float)):
        return isinstance(value, (int, float)) and not isinstance(value, bool)
    return isinstance(value, str) and "\0" not in value
