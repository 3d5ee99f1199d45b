"""Many at once on one PostgreSQL, directly and through a pooler that gives each transaction another connection."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

import pytest
from leasing import lease_all, together
from many_cases import PROJECT, fill
from rekindle_inference.state import State as InferenceState
from rekindle_scheduler.state import open_state
from rekindle_servicekit import database
from rekindle_servicekit.database import make_engine, read
from rekindle_trainer.state import MIGRATIONS, State
from servers.pgbouncer import PgbouncerServer
from servers.postgresql import PostgresqlServer


@pytest.fixture(scope="module")
def pooler(postgresql: PostgresqlServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PgbouncerServer]:
    with PgbouncerServer(tmp_path_factory.mktemp("pgbouncer"), postgresql, pool_size=3) as server:
        yield server


@pytest.fixture(params=["direct", "pooler"])
def url(request: pytest.FixtureRequest, postgresql: PostgresqlServer) -> str:
    """A new database, by its own port and by the pooler's."""
    direct = postgresql.create_database()
    if request.param == "direct":
        return direct
    return request.getfixturevalue("pooler").url(direct.rpartition("/")[2])


def test_each_case_is_leased_once(url: str) -> None:
    """Twelve annotators at once take all of 150 cases: none twice, none left, and in the round's order by and large."""
    store = open_state(url)
    fill(store, cases=150, selected=150)
    taken = lease_all(store, PROJECT, people=12, cases=10**6)
    assert {1} == set(Counter(taken).values())
    assert {f"case-{number}" for number in range(1, 151)} == set(taken)
    first_half = {int(case.removeprefix("case-")) for case in taken[:75]}
    assert max(first_half) <= 75 + 2 * 12
    store.close()


def test_a_schema_is_made_once(url: str) -> None:
    """However many start at the same moment."""

    def start() -> None:
        engine = make_engine(url)
        database.migrate(engine, MIGRATIONS)
        engine.dispose()

    together([start] * 4)
    engine = make_engine(url)
    with read(engine) as connection:
        assert 1 == connection.exec_driver_sql("SELECT count(*) FROM alembic_version").scalar_one()
    engine.dispose()


def test_supervisors_claim_in_turn(url: str) -> None:
    """Under the queue's lock, which ends with the transaction wherever the pooler puts that, eight count to 80."""
    engine = make_engine(url)
    database.migrate(engine, MIGRATIONS)
    state = State(engine)
    with database.write(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE counter (n integer)")
        connection.exec_driver_sql("INSERT INTO counter VALUES (0)")

    def count_up() -> None:
        for _ in range(10):
            with state.write() as tx:
                tx.lock_queue()
                value = tx._connection.exec_driver_sql("SELECT n FROM counter").scalar_one()
                tx._connection.exec_driver_sql(f"UPDATE counter SET n = {value + 1}")

    together([count_up] * 8)
    with read(engine) as connection:
        assert 80 == connection.exec_driver_sql("SELECT n FROM counter").scalar_one()
    engine.dispose()


def test_limits_do_not_leak_to_the_next_transaction(url: str) -> None:
    """What one transaction sets, for itself alone, another one on the same connection does not have."""
    strict, plain = make_engine(url, statement_timeout_s=0.5), make_engine(url, statement_timeout_s=7)
    for engine, expected in ((strict, "500ms"), (plain, "7s"), (strict, "500ms")):
        with database.write(engine) as connection:
            assert expected == connection.exec_driver_sql("SHOW statement_timeout").scalar_one()
    for engine in (strict, plain):
        engine.dispose()


def test_the_inference_service_opens_through_it(url: str) -> None:
    """Its schema is made, and version numbers go up."""
    state = InferenceState(url)
    with state.write() as uow:
        assert 1 == uow.models.next_version("p")
    state.close()
