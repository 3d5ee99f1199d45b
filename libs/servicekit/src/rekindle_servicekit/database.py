"""The database of a service: engines for SQLite and PostgreSQL, transactions, migrations, timestamps."""

from __future__ import annotations

import hashlib
import logging
import sqlite3
import time
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import alembic.command
import alembic.config
import alembic.context
import sqlalchemy as sa
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from rekindle.errors import DependencyUnavailable, InvalidInput
from sqlalchemy import event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DataError, DBAPIError, IntegrityError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

_log = logging.getLogger(__name__)

_READ_ONLY: Final = "rekindle_read_only"
#: Arbitrary; migrations of one PostgreSQL database take turns under it.
_MIGRATION_LOCK: Final = 0x52454B49
#: SQLite's ways of saying "not now" rather than "never".
_TRANSIENT_SQLITE: Final = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
}


#: Codes of further errors that pass: a primary that has become a standby, and a transaction that stood still.
_TRANSIENT_POSTGRESQL: Final = {"25006", "25P03"}
#: A row that another transaction has just made, or removed: on SQLite, with one writer, that is no coincidence.
_CONCURRENT_POSTGRESQL: Final = {"23503", "23505"}
#: Messages of PostgreSQL for a refused login; the driver gives no code for it.
_REFUSALS: Final = ("authentication failed", "no password supplied", "no pg_hba.conf entry", "FATAL:  database")
_LOOK_AGAIN_S: Final = 1.0
_IDLE_TIMEOUT_S: Final = 120.0
#: A line that is cut without a word is noticed within half a minute.
_POSTGRESQL_LINE: Final = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "rekindle",
}


class UtcDateTime(sa.types.TypeDecorator[datetime]):
    """A moment, with time zone in Python, in UTC in every database. ValueError for a naive datetime."""

    impl = sa.DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment needs its time zone: this datetime has none")
        in_utc = value.astimezone(UTC)
        # SQLite keeps text: without a zone it sorts by time, and nothing is lost as all of it is UTC.
        return in_utc.replace(tzinfo=None) if dialect.name == "sqlite" else in_utc

    def process_result_value(self, value: datetime | None, dialect: sa.Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


def make_engine(
    url: str, *, busy_timeout_s: float = 30.0, pool_size: int = 10, statement_timeout_s: float = 60.0
) -> sa.Engine:
    """An engine for ``sqlite:///path`` or ``postgresql://...``; InvalidInput for anything else.

    `busy_timeout_s` is the longest wait for others: for the writer's lock of SQLite, for locks and for a free
    connection of PostgreSQL, whose statements may take `statement_timeout_s`.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        raise _unusable("it is no URL") from None
    kind = parsed.get_backend_name()
    if kind == "sqlite":
        return _sqlite_engine(parsed, busy_timeout_s)
    if kind == "postgresql":
        return _postgresql_engine(parsed, busy_timeout_s, pool_size, statement_timeout_s)
    raise _unusable(f"its kind is {kind!r}")


def database_now(connection: sa.Connection) -> datetime:
    """The moment by the database's clock in UTC, so that all processes agree on what has expired."""
    if connection.dialect.name == "sqlite":
        text = connection.exec_driver_sql("SELECT strftime('%Y-%m-%dT%H:%M:%f', 'now')").scalar_one()
        return datetime.fromisoformat(str(text)).replace(tzinfo=UTC)
    moment: datetime = connection.execute(sa.select(sa.func.clock_timestamp())).scalar_one()
    return moment.astimezone(UTC)


@contextmanager
def write(engine: sa.Engine) -> Generator[sa.Connection]:
    """A transaction that may write; on SQLite the only one of its kind from its first statement on.

    Committed at the end, rolled back on any exception. DependencyUnavailable: the database is busy or away, or
    (CONCURRENT_WRITE) another transaction got in between. InvalidInput: a value that no column can hold.
    """
    with _converted_errors(), engine.begin() as connection:
        yield connection


@contextmanager
def read(engine: sa.Engine) -> Generator[sa.Connection]:
    """A transaction that only reads, all of it one consistent state, and that never waits for a writer."""
    options = {_READ_ONLY: True}
    if engine.dialect.name == "postgresql":
        options |= {"postgresql_readonly": True, "isolation_level": "REPEATABLE READ"}
    with _converted_errors(), engine.connect().execution_options(**options) as connection, connection.begin():
        yield connection


def migrate(engine: sa.Engine, script_location: str | Path) -> None:
    """Bring the schema to the newest revision of a migrations folder: a path, or ``package:folder``.

    All or nothing, and once, however many processes call it at a time. A schema that a newer release has made
    stays as it is: releases only add to it, so that the release before can still run on it.
    """
    config = _config(script_location)
    with write(engine) as connection:
        if engine.dialect.name == "postgresql":
            # Others that migrate, and a large table, take the time that they take.
            _limit_postgresql(connection, statement_timeout_s=0, lock_timeout_s=0)
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_MIGRATION_LOCK)))
        if _is_newer(connection, config):
            _log.warning("the schema is a newer release's and stays so", extra={"action": "schema.newer"})
            return
        before = _revisions(connection)
        config.attributes["connection"] = connection
        alembic.command.upgrade(config, "head")
        after = _revisions(connection)
    if after != before:
        words = (", ".join(sorted(before)) or "nothing", ", ".join(sorted(after)))
        _log.info("the schema went from %s to %s", *words, extra={"action": "schema.migrated"})


def require_schema(engine: sa.Engine, script_location: str | Path) -> None:
    """DependencyUnavailable (SCHEMA_BEHIND) unless the schema is this release's, or a newer one's."""
    config = _config(script_location)
    with read(engine) as connection:
        if _revisions(connection) == set(ScriptDirectory.from_config(config).get_heads()) or _is_newer(
            connection, config
        ):
            return
    raise DependencyUnavailable(
        "the database's schema is older than this release: run the service's command `migrate` first",
        reason="SCHEMA_BEHIND",
    )


def prepare_schema(
    engine: sa.Engine, script_location: str | Path, *, migrates: bool, patience_s: float = 300.0
) -> None:
    """`migrate`, or `require_schema` where a step of the deployment migrates.

    A database that cannot be reached yet is waited for: services and databases start in any order.
    """
    deadline = time.monotonic() + patience_s
    while True:
        try:
            return (migrate if migrates else require_schema)(engine, script_location)
        except DependencyUnavailable as error:
            if error.reason != "DATABASE_UNAVAILABLE" or time.monotonic() > deadline:
                raise
            _log.warning("%s", error.message, extra={"action": "schema.waiting"})
        time.sleep(_LOOK_AGAIN_S)


def hold_names(connection: sa.Connection, names: Iterable[str]) -> None:
    """Make other transactions that hold one of these names wait until this one ends.

    SQLite has one writer anyhow. In PostgreSQL the names are taken in order, so that no two transactions wait for each
    other.
    """
    if connection.dialect.name == "postgresql":
        for name in sorted(set(names)):
            key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(key)))


def wipe(engine: sa.Engine) -> None:
    """Leave nothing of removed rows in SQLite's log; its pages were overwritten when the rows were removed.

    DependencyUnavailable where a reader holds the log for longer than the busy timeout: try again.

    PostgreSQL keeps removed rows until it vacuums, and its log as long as it is configured to.
    """
    if engine.dialect.name != "sqlite":
        return
    # Not within a transaction, which SQLAlchemy would begin.
    connection = engine.raw_connection()
    try:
        cursor = connection.cursor()
        # (whether a reader was in the way, pages of the log, pages moved)
        is_busy = cursor.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
        cursor.close()
    finally:
        connection.close()
    if is_busy:
        raise DependencyUnavailable(
            "the database's log is being read and cannot be emptied yet: try again",
            reason="DATABASE_UNAVAILABLE",
            retry_after_s=1.0,
        )


def _config(script_location: str | Path) -> alembic.config.Config:
    config = alembic.config.Config()
    config.set_main_option("script_location", str(script_location).replace("%", "%%"))
    config.set_main_option("path_separator", "os")
    return config


def _is_newer(connection: sa.Connection, config: alembic.config.Config) -> bool:
    """Whether the schema has revisions that this release does not know."""
    known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
    return not known.issuperset(_revisions(connection))


def _revisions(connection: sa.Connection) -> set[str]:
    return set(MigrationContext.configure(connection).get_current_heads())


def run_migrations(metadata: sa.MetaData) -> None:
    """What the ``env.py`` of a service's migrations folder calls, and all that it needs to do."""
    connection: sa.Connection = alembic.context.config.attributes["connection"]
    alembic.context.configure(
        connection=connection,
        target_metadata=metadata,
        transactional_ddl=True,
        # SQLite can alter little in place; Alembic then copies the table.
        render_as_batch=connection.dialect.name == "sqlite",
    )
    with alembic.context.begin_transaction():
        alembic.context.run_migrations()


def _postgresql_engine(url: URL, busy_timeout_s: float, pool_size: int, statement_timeout_s: float) -> sa.Engine:
    # What the URL says goes before.
    usual = {name: value for name, value in _POSTGRESQL_LINE.items() if name not in url.query}
    engine = sa.create_engine(
        url.set(drivername="postgresql+psycopg"),
        pool_size=pool_size,
        pool_timeout=busy_timeout_s,
        pool_pre_ping=True,
        # Rows hold patient data, which errors in the log must not repeat.
        hide_parameters=True,
        # Prepared statements belong to a connection, and a pooler hands another one to each transaction.
        connect_args={"prepare_threshold": None, **usual},
    )

    def begin(connection: sa.Connection) -> None:
        _limit_postgresql(connection, statement_timeout_s, busy_timeout_s)

    event.listen(engine, "begin", begin)
    return engine


def _limit_postgresql(connection: sa.Connection, statement_timeout_s: float, lock_timeout_s: float) -> None:
    """For this transaction alone: what belongs to a session is lost, or others', behind a pooler."""
    limits = {
        "statement_timeout": statement_timeout_s,
        "lock_timeout": lock_timeout_s,
        # A process that stands still must not hold on to its locks.
        "idle_in_transaction_session_timeout": _IDLE_TIMEOUT_S,
    }
    set_all = ", ".join(f"set_config('{name}', '{round(1000 * value)}', true)" for name, value in limits.items())
    connection.exec_driver_sql(f"SELECT {set_all}")


def _sqlite_engine(url: URL, busy_timeout_s: float) -> sa.Engine:
    if not url.database or url.database == ":memory:":
        raise _unusable("a SQLite database needs a file, as each thread would see its own otherwise")
    Path(url.database).parent.mkdir(parents=True, exist_ok=True)
    engine = sa.create_engine(url, hide_parameters=True)
    event.listen(engine, "connect", _SqliteConnect(busy_timeout_s))
    event.listen(engine, "begin", _begin_sqlite)
    return engine


class _SqliteConnect:
    def __init__(self, busy_timeout_s: float) -> None:
        self._busy_timeout_ms = round(busy_timeout_s * 1000)

    def __call__(self, connection: Any, _record: Any) -> None:
        # The driver would begin transactions by itself, and too late: see _begin_sqlite.
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute(f"PRAGMA busy_timeout = {self._busy_timeout_ms}")
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        # Removed rows are overwritten: they may belong to an erased patient.
        cursor.execute("PRAGMA secure_delete = ON")
        cursor.close()


def _begin_sqlite(connection: sa.Connection) -> None:
    # A transaction that reads first and then writes fails at once if another one wrote in between; taking
    # the lock at the beginning lets it wait instead.
    is_reader = connection.get_execution_options().get(_READ_ONLY, False)
    connection.exec_driver_sql("BEGIN" if is_reader else "BEGIN IMMEDIATE")


@contextmanager
def _converted_errors() -> Generator[None]:
    try:
        yield
    except PoolTimeout as error:
        raise DependencyUnavailable(
            "all connections to the database are in use: try again", reason="DATABASE_UNAVAILABLE", retry_after_s=1.0
        ) from error
    except DBAPIError as error:
        _remove_values(error)
        if isinstance(error, DataError):
            raise InvalidInput(
                "a value of the request cannot be stored: texts must not hold NUL characters, and numbers must be "
                "within their limits",
                reason="UNSTORABLE_VALUE",
            ) from error
        if isinstance(error, IntegrityError) and getattr(error.orig, "sqlstate", None) in _CONCURRENT_POSTGRESQL:
            raise DependencyUnavailable(
                "the same thing was written at this moment by another call: try again",
                reason="CONCURRENT_WRITE",
                retry_after_s=0.1,
            ) from error
        if not _is_transient(error):
            raise
        if any(words in str(error.orig) for words in _REFUSALS):
            raise DependencyUnavailable(
                "the database refuses this service's login: look at user, password, database and pg_hba.conf",
                reason="DATABASE_REFUSES",
                retry_after_s=30.0,
            ) from error
        raise DependencyUnavailable(
            "the database is busy or cannot be reached: try again",
            reason="DATABASE_UNAVAILABLE",
            retry_after_s=1.0,
        ) from error


def _remove_values(error: DBAPIError) -> None:
    """PostgreSQL's texts repeat what was to be stored; what remains says where it went wrong."""
    diagnosis = getattr(error.orig, "diag", None)
    if diagnosis is None or error.orig is None or isinstance(error, OperationalError):
        return
    parts = (diagnosis.sqlstate, diagnosis.table_name, diagnosis.column_name, diagnosis.constraint_name)
    error.orig.args = error.args = (" ".join(["refused:", *(part for part in parts if part)]),)


def _is_transient(error: DBAPIError) -> bool:
    if isinstance(error.orig, sqlite3.Error):
        # The lower byte is the primary code.
        is_operational = isinstance(error, OperationalError)
        return is_operational and (getattr(error.orig, "sqlite_errorcode", 0) & 0xFF) in _TRANSIENT_SQLITE
    transient = getattr(error.orig, "sqlstate", None) in _TRANSIENT_POSTGRESQL
    return isinstance(error, OperationalError) or error.connection_invalidated or transient


def _unusable(why: str) -> InvalidInput:
    # The URL itself may hold a password.
    return InvalidInput(
        f"database URL cannot be used: {why}; use sqlite:///path/to/file or postgresql://host/database",
        reason="INVALID_DATABASE_URL",
    )
