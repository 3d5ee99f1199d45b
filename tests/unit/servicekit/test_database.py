"""Engines, transactions, migrations and timestamps, on SQLite."""

from __future__ import annotations

import multiprocessing
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from rekindle.errors import DependencyUnavailable, InvalidInput
from rekindle_servicekit.database import (
    UtcDateTime,
    make_engine,
    migrate,
    prepare_schema,
    read,
    require_schema,
    wipe,
    write,
)

_metadata = sa.MetaData()
_parents = sa.Table("parents", _metadata, sa.Column("id", sa.Integer, primary_key=True))
_events = sa.Table(
    "events",
    _metadata,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("parent", sa.ForeignKey("parents.id")),
    sa.Column("at", UtcDateTime),
)

_ENV = """
import sqlalchemy as sa
from rekindle_servicekit.database import run_migrations
run_migrations(sa.MetaData())
"""
_REVISION = """
import sqlalchemy as sa
from alembic import op

revision = {revision!r}
down_revision = {down!r}

def upgrade():
    {body}
"""


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    """A new database with two tables."""
    engine = make_engine(f"sqlite:///{tmp_path}/state/test.db", busy_timeout_s=0.2)
    _metadata.create_all(engine)
    yield engine
    engine.dispose()


def test_sqlite_is_set_for_durability(engine: sa.Engine) -> None:
    """WAL, synchronous FULL (2), foreign keys and the busy timeout are on in every connection."""
    with read(engine) as first, read(engine) as second:
        for connection in (first, second):
            values = [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
                for name in ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            ]
            assert ["wal", 2, 1, 200] == values


def test_foreign_keys_are_enforced(engine: sa.Engine) -> None:
    """A row that refers to nothing is refused."""
    with pytest.raises(sa.exc.IntegrityError), write(engine) as connection:
        connection.execute(sa.insert(_events).values(id=1, parent=99))


def test_failed_transaction_leaves_nothing(engine: sa.Engine) -> None:
    """An exception rolls back all of the transaction, and passes on as it is."""

    def fail() -> None:
        with write(engine) as connection:
            connection.execute(sa.insert(_parents).values(id=1))
            raise LookupError("no")

    with pytest.raises(LookupError, match="no"):
        fail()
    with read(engine) as connection:
        assert 0 == connection.execute(sa.select(sa.func.count()).select_from(_parents)).scalar_one()


def test_one_writer_at_a_time_and_readers_do_not_wait(engine: sa.Engine) -> None:
    """While one writes, another write is refused after the timeout, and a reader sees the state before."""
    with write(engine) as writer:
        writer.execute(sa.insert(_parents).values(id=1))
        with pytest.raises(DependencyUnavailable) as caught, write(engine):
            pytest.fail("a second writer got in")
        with read(engine) as reader:
            assert [] == reader.execute(sa.select(_parents.c.id)).scalars().all()
    with read(engine) as reader:
        assert [1] == reader.execute(sa.select(_parents.c.id)).scalars().all()
    assert ("DATABASE_UNAVAILABLE", 1.0) == (caught.value.reason, caught.value.retry_after_s)


def test_programming_errors_are_not_called_transient(engine: sa.Engine) -> None:
    """A statement that can never work stays the driver's error."""
    with pytest.raises(sa.exc.OperationalError, match="no such table"), read(engine) as connection:
        connection.exec_driver_sql("SELECT * FROM missing")


def test_read_then_write_never_loses_an_update(tmp_path: Path) -> None:
    """Four threads that read a counter and write it back 25 times each add up to 100."""
    engine = make_engine(f"sqlite:///{tmp_path}/counter.db")
    _metadata.create_all(engine)
    counter = sa.Table("counter", sa.MetaData(), sa.Column("n", sa.Integer))
    counter.create(engine)
    with write(engine) as connection:
        connection.execute(sa.insert(counter).values(n=0))

    def count() -> None:
        for _ in range(25):
            with write(engine) as connection:
                value = connection.execute(sa.select(counter.c.n)).scalar_one()
                connection.execute(sa.update(counter).values(n=value + 1))

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with read(engine) as connection:
        assert 100 == connection.execute(sa.select(counter.c.n)).scalar_one()
    engine.dispose()


def test_the_log_is_wiped_or_it_is_said(engine: sa.Engine) -> None:
    """While somebody reads an older state the log cannot be emptied: a typed error, and nothing afterwards."""
    log = Path(f"{engine.url.database}-wal")
    with write(engine) as connection:
        connection.execute(sa.insert(_parents).values(id=1))
    with read(engine) as reader:
        reader.execute(sa.select(_parents)).all()
        with write(engine) as connection:
            connection.execute(sa.insert(_parents).values(id=2))
        with pytest.raises(DependencyUnavailable, match="try again"):
            wipe(engine)
        assert log.stat().st_size > 0
    wipe(engine)
    assert 0 == log.stat().st_size


def test_moments_are_kept_in_utc(engine: sa.Engine) -> None:
    """A moment comes back equal, in UTC, with microseconds; None stays None; order is order of time."""
    plus_two = timezone(timedelta(hours=2))
    late = datetime(2024, 3, 31, 12, 0, 0, 1, tzinfo=plus_two)
    later = datetime(2024, 3, 31, 10, 30, tzinfo=UTC)
    with write(engine) as connection:
        rows = [{"id": 1, "at": later}, {"id": 2, "at": late}, {"id": 3, "at": None}]
        connection.execute(sa.insert(_events), rows)
    with read(engine) as connection:
        got = connection.execute(sa.select(_events.c.at).order_by(_events.c.at)).scalars().all()
        before = sa.select(_events.c.id).where(_events.c.at < later)
        assert [2] == connection.execute(before).scalars().all()
    assert [None, datetime(2024, 3, 31, 10, 0, 0, 1, tzinfo=UTC), later] == got
    assert [UTC, UTC] == [moment.tzinfo for moment in got if moment]


def test_naive_moment_is_refused(engine: sa.Engine) -> None:
    """A datetime without a zone never reaches the database."""
    with pytest.raises(sa.exc.StatementError, match="time zone"), write(engine) as connection:
        connection.execute(sa.insert(_events).values(id=1, at=datetime(2024, 1, 1)))


@pytest.mark.parametrize("url", ["", "nonsense", "sqlite://", "sqlite:///:memory:", "mysql://user:hunter2@host/db"])
def test_other_urls_are_refused(url: str) -> None:
    """Databases that would not work are InvalidInput, and a password is not repeated."""
    with pytest.raises(InvalidInput) as caught:
        make_engine(url)
    assert "INVALID_DATABASE_URL" == caught.value.reason
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg2"])
def test_postgresql_uses_psycopg_without_prepared_statements(scheme: str) -> None:
    """PostgreSQL goes through psycopg 3, and works behind a pooler that shares connections."""
    pytest.importorskip("psycopg")
    engine = make_engine(f"{scheme}://user:secret@db.example/rekindle")
    _, arguments = engine.dialect.create_connect_args(engine.url)
    assert ("postgresql", "psycopg") == (engine.dialect.name, engine.dialect.driver)
    assert {"host": "db.example", "dbname": "rekindle"} == {key: arguments[key] for key in ("host", "dbname")}


def _write_revision(folder: Path, revision: str, down: str | None, body: str) -> None:
    (folder / "versions" / f"{revision}.py").write_text(_REVISION.format(revision=revision, down=down, body=body))


@pytest.fixture
def migrations(tmp_path: Path) -> Path:
    """A migrations folder with one revision that makes the table `cases`."""
    folder = tmp_path / "50%_migrations"
    (folder / "versions").mkdir(parents=True)
    (folder / "env.py").write_text(_ENV)
    _write_revision(folder, "0001", None, 'op.create_table("cases", sa.Column("id", sa.Integer))')
    return folder


def test_migrate_brings_the_schema_to_head(tmp_path: Path, migrations: Path) -> None:
    """Migrating makes the tables, again changes nothing, and a new revision is added to what is there."""
    engine = make_engine(f"sqlite:///{tmp_path}/m.db")
    migrate(engine, migrations)
    with write(engine) as connection:
        connection.exec_driver_sql("INSERT INTO cases VALUES (7)")
    migrate(engine, migrations)
    _write_revision(migrations, "0002", "0001", 'op.add_column("cases", sa.Column("state", sa.Text))')
    migrate(engine, migrations)
    with read(engine) as connection:
        assert [(7, None)] == [tuple(row) for row in connection.exec_driver_sql("SELECT id, state FROM cases")]
    engine.dispose()


def test_failed_migration_changes_nothing(tmp_path: Path, migrations: Path) -> None:
    """If any revision fails, the schema is as it was before the first one."""
    _write_revision(migrations, "0002", "0001", 'raise LookupError("half-way")')
    engine = make_engine(f"sqlite:///{tmp_path}/m.db")
    with pytest.raises(LookupError, match="half-way"):
        migrate(engine, migrations)
    assert [] == sa.inspect(engine).get_table_names()
    engine.dispose()


def test_a_newer_releases_schema_is_left_alone(tmp_path: Path, migrations: Path) -> None:
    """After a roll-back the release before finds revisions that it does not know, and goes on with them."""
    engine = make_engine(f"sqlite:///{tmp_path}/state.db")
    _write_revision(migrations, "0002", "0001", 'op.add_column("cases", sa.Column("state", sa.Text))')
    migrate(engine, migrations)
    next(migrations.glob("versions/*0002*")).unlink()
    migrate(engine, migrations)
    require_schema(engine, migrations)
    with read(engine) as connection:
        assert "0002" == connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar_one()


def test_an_older_schema_is_refused_where_another_step_migrates(tmp_path: Path, migrations: Path) -> None:
    """The error names the command; once that has run, the service starts."""
    engine = make_engine(f"sqlite:///{tmp_path}/state.db")
    with pytest.raises(DependencyUnavailable, match="migrate") as caught:
        prepare_schema(engine, migrations, migrates=False)
    assert "SCHEMA_BEHIND" == caught.value.reason
    assert [] == sa.inspect(engine).get_table_names()
    prepare_schema(engine, migrations, migrates=True)
    prepare_schema(engine, migrations, migrates=False)
    assert "cases" in sa.inspect(engine).get_table_names()


def _migrate_in_process(url: str, migrations: str) -> None:
    migrate(make_engine(url), migrations)


def test_processes_migrate_one_after_the_other(tmp_path: Path, migrations: Path) -> None:
    """Three processes that start at once all succeed, and the revision runs once."""
    url = f"sqlite:///{tmp_path}/m.db"
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_migrate_in_process, args=(url, str(migrations))) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [0, 0, 0] == [process.exitcode for process in processes]
    engine = make_engine(url)
    assert {"cases", "alembic_version"} == set(sa.inspect(engine).get_table_names())
    engine.dispose()
