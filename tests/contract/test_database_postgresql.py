"""Transactions, limits and faults of the service kit's database, on PostgreSQL."""

from __future__ import annotations

import multiprocessing
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
import sqlalchemy as sa
from rekindle.errors import DependencyUnavailable, InvalidInput
from rekindle_servicekit.database import UtcDateTime, make_engine, migrate, prepare_schema, read, write
from servers.postgresql import PostgresqlServer
from servers.proxy import Proxy

_metadata = sa.MetaData()
_events = sa.Table("events", _metadata, sa.Column("id", sa.Integer, primary_key=True), sa.Column("at", UtcDateTime))
_ENV = """
import sqlalchemy as sa
from rekindle_servicekit.database import run_migrations
run_migrations(sa.MetaData())
"""
_REVISION = """
import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

def upgrade():
    op.create_table("cases", sa.Column("id", sa.Integer))
    op.get_bind().exec_driver_sql("SELECT pg_sleep(0.2)")
"""

MakeEngine = Callable[..., sa.Engine]


@pytest.fixture
def url(postgresql: PostgresqlServer) -> str:
    """A new database."""
    return postgresql.create_database()


@pytest.fixture
def make(url: str) -> Iterator[MakeEngine]:
    """Engines on it, with its one table."""
    made: list[sa.Engine] = []

    def make(url: str = url, **options: float) -> sa.Engine:
        engine = make_engine(url, **options)  # pyright: ignore[reportArgumentType]
        made.append(engine)
        return engine

    with write(make()) as connection:
        _metadata.create_all(connection)
    yield make
    for engine in made:
        engine.dispose()


def add(engine: sa.Engine, number: int, *, then: Callable[[], object] = lambda: None) -> None:
    """One event; `then` happens before its transaction is committed."""
    with write(engine) as connection:
        connection.execute(sa.insert(_events).values(id=number))
        then()


def count(connection: sa.Connection) -> int:
    return connection.execute(sa.select(sa.func.count()).select_from(_events)).scalar_one()


def test_moments_are_kept_in_utc(make: MakeEngine) -> None:
    """A moment comes back equal, in UTC, with microseconds."""
    engine, late = make(), datetime(2024, 3, 31, 12, 0, 0, 1, tzinfo=timezone(timedelta(hours=2)))
    with write(engine) as connection:
        connection.execute(sa.insert(_events).values(id=1, at=late))
    with read(engine) as connection:
        got = connection.execute(sa.select(_events.c.at)).scalar_one()
    assert (late, UTC) == (got, got.tzinfo)


def test_a_reader_sees_one_state_and_never_waits(make: MakeEngine) -> None:
    """What others commit between two of its statements it does not see, and what they hold does not hold it."""
    engine = make()
    add(engine, 1)
    with read(engine) as reader:
        assert 1 == count(reader)
        add(engine, 2)
        with write(engine) as writer:
            writer.execute(sa.update(_events).values(at=datetime.now(UTC)))
            assert 1 == count(reader)
    with read(engine) as reader:
        assert 2 == count(reader)


def test_a_reader_cannot_write(make: MakeEngine) -> None:
    """The database refuses it."""
    engine = make()
    with pytest.raises(DependencyUnavailable), read(engine) as connection:
        connection.execute(sa.insert(_events).values(id=1))
    with read(engine) as connection:
        assert 0 == count(connection)


def test_a_writer_that_waits_too_long_is_told_so(make: MakeEngine) -> None:
    """For another one's row, as for SQLite's lock."""
    engine = make(busy_timeout_s=0.2)
    add(engine, 1)
    change = sa.update(_events).where(_events.c.id == 1).values(at=None)
    with write(engine) as first:
        first.execute(change)
        with pytest.raises(DependencyUnavailable, match="the database is busy"), write(engine) as second:
            second.execute(change)


def test_a_statement_has_a_limit_of_time(make: MakeEngine) -> None:
    """And the connection is as good as before afterwards."""
    engine = make(statement_timeout_s=0.2)
    with pytest.raises(DependencyUnavailable), write(engine) as connection:
        connection.exec_driver_sql("SELECT pg_sleep(10)")
    add(engine, 1)


def test_more_work_than_connections_is_told_so(make: MakeEngine) -> None:
    """Not an internal error; and whoever asks again later gets one."""
    engine = make(pool_size=1, busy_timeout_s=0.2)
    held = [engine.connect() for _ in range(11)]
    with pytest.raises(DependencyUnavailable, match="all connections to the database are in use"):
        add(engine, 1)
    for connection in held:
        connection.close()
    add(engine, 1)


def test_programming_errors_are_not_called_transient(make: MakeEngine) -> None:
    """A statement that can never work stays the driver's error."""
    with pytest.raises(sa.exc.ProgrammingError, match="missing"), read(make()) as connection:
        connection.exec_driver_sql("SELECT * FROM missing")


def test_a_line_that_is_cut_heals(make: MakeEngine, postgresql: PostgresqlServer, url: str) -> None:
    """In the middle of a transaction nothing of it stays; while it is cut the database is named; then all is well."""
    with Proxy(postgresql.port) as line:
        engine = make(url.replace(f":{postgresql.port}/", f":{line.port}/"))
        with pytest.raises(DependencyUnavailable, match="the database"):
            add(engine, 1, then=line.cut)
        with pytest.raises(DependencyUnavailable, match="the database"):
            add(engine, 2)
        line.heal()
        add(engine, 3)
        with read(engine) as connection:
            assert [3] == list(connection.execute(sa.select(_events.c.id)).scalars())


def test_a_server_that_is_killed_comes_back_with_what_was_committed(tmp_path: Path) -> None:
    """And a transaction that it took with it can be sent again, over the same engine."""
    with PostgresqlServer(tmp_path / "postgresql") as server:
        engine = make_engine(server.create_database())

        def kill() -> None:
            server.kill()
            # The processes of its connections end when they notice, which may be after the next statement.
            time.sleep(0.5)

        with write(engine) as connection:
            _metadata.create_all(connection)
        add(engine, 1)
        with pytest.raises(DependencyUnavailable, match="the database"):
            add(engine, 2, then=kill)
        began = time.monotonic()
        with pytest.raises(DependencyUnavailable, match="the database"):
            add(engine, 2)
        assert time.monotonic() - began < 10
        server.start()
        add(engine, 2)
        with read(engine) as connection:
            assert 2 == count(connection)
        engine.dispose()


@pytest.mark.parametrize(
    ("right", "wrong"), [("only-for-tests", "hunter2"), ("rekindle:", "nobody-known:"), ("/test_", "/missing_")]
)
def test_a_login_that_is_refused_is_told_as_such(url: str, right: str, wrong: str) -> None:
    """Not as a server that is away, and without the password; no start waits for it."""
    engine = make_engine(url.replace(right, wrong))
    with pytest.raises(DependencyUnavailable, match="refuses this service's login") as caught:
        prepare_schema(engine, "rekindle_trainer:migrations", migrates=True)
    assert "DATABASE_REFUSES" == caught.value.reason
    assert "hunter2" not in str(caught.value)
    engine.dispose()


def test_a_start_waits_for_the_server(tmp_path: Path) -> None:
    """Services and databases start in any order; and one that never comes is given up."""
    with PostgresqlServer(tmp_path / "postgresql", durable=False) as server:
        url = server.create_database()
        server.kill()
        engine = make_engine(url)
        with pytest.raises(DependencyUnavailable, match="cannot be reached"):
            prepare_schema(engine, "rekindle_trainer:migrations", migrates=True, patience_s=0)
        with ThreadPoolExecutor(1) as helper:
            started = helper.submit(lambda: (time.sleep(0.3), server.start()))
            prepare_schema(engine, "rekindle_trainer:migrations", migrates=True)
            started.result()
            assert "runs" in sa.inspect(engine).get_table_names()
            engine.dispose()


def test_read_then_write_under_a_lock_never_loses_an_update(make: MakeEngine) -> None:
    """Four threads that lock a row, read it and write it back 25 times each add up to 100."""
    engine = make()
    counter = sa.Table("counter", sa.MetaData(), sa.Column("n", sa.Integer))
    with write(engine) as connection:
        counter.create(connection)
        connection.execute(sa.insert(counter).values(n=0))

    def count_up() -> None:
        for _ in range(25):
            with write(engine) as connection:
                value = connection.execute(sa.select(counter.c.n).with_for_update()).scalar_one()
                connection.execute(sa.update(counter).values(n=value + 1))

    threads = [threading.Thread(target=count_up) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with read(engine) as connection:
        assert 100 == connection.execute(sa.select(counter.c.n)).scalar_one()


def _migrate_in_process(url: str, migrations: str) -> None:
    migrate(make_engine(url, busy_timeout_s=0.1, statement_timeout_s=0.1), migrations)


def test_processes_migrate_one_after_the_other(url: str, tmp_path: Path) -> None:
    """Three processes that start at once all succeed, the revision runs once, and no limit of time cuts it short."""
    (tmp_path / "migrations" / "versions").mkdir(parents=True)
    (tmp_path / "migrations" / "env.py").write_text(_ENV)
    (tmp_path / "migrations" / "versions" / "0001.py").write_text(_REVISION)
    context = multiprocessing.get_context("spawn")
    arguments = (url, str(tmp_path / "migrations"))
    processes = [context.Process(target=_migrate_in_process, args=arguments) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [0, 0, 0] == [process.exitcode for process in processes]
    engine = make_engine(url)
    assert {"cases", "alembic_version"} == set(sa.inspect(engine).get_table_names())
    engine.dispose()


def test_a_row_that_another_transaction_has_just_made_is_told_as_a_reason_to_try_again(make: MakeEngine) -> None:
    """Two calls that make the same thing at once: the second one may come again, and is told nothing of the row."""
    engine = make()
    row = {"id": 1, "at": datetime(2026, 1, 2, tzinfo=UTC)}
    with write(engine) as connection:
        connection.execute(sa.insert(_events).values(row))
    with pytest.raises(DependencyUnavailable) as caught, write(engine) as connection:
        connection.execute(sa.insert(_events).values(row))
    assert ("CONCURRENT_WRITE", 0.1) == (caught.value.reason, caught.value.retry_after_s)


def test_a_value_that_no_column_can_hold_is_the_callers_mistake(make: MakeEngine) -> None:
    """A NUL character, which PostgreSQL has no text for, is refused with words."""
    with pytest.raises(InvalidInput) as caught, write(make()) as connection:
        connection.execute(sa.select(sa.literal("a\0b")))
    assert "UNSTORABLE_VALUE" == caught.value.reason


def test_errors_do_not_repeat_what_was_to_be_stored(make: MakeEngine) -> None:
    """What reaches a log of an error names the column that refused, and not the values of the row."""
    engine = make()
    with write(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE patients (name text CHECK (name <> 'Doe^Jane'), born int NOT NULL)")
    insert = sa.text("INSERT INTO patients VALUES (:name, :born)")
    for row in ({"name": "Doe^Jane", "born": 1971}, {"name": "Roe^Jane", "born": None}):
        with pytest.raises(sa.exc.IntegrityError) as caught, write(engine) as connection:
            connection.execute(insert, row)
        told = "".join(traceback.format_exception(caught.value))
        assert "patients" in told
        assert "Jane" not in told
        assert "1971" not in told
