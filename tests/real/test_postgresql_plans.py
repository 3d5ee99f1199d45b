"""How PostgreSQL finds rows among very many."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import sqlalchemy as sa
from many_cases import PROJECT, fill
from rekindle_scheduler.state import CaseFilter, State, UnitOfWork, open_state
from servers.postgresql import PostgresqlServer


@pytest.fixture(scope="module")
def store(postgresql: PostgresqlServer) -> Iterator[State]:
    """120,000 cases, half of them in the round, half of those labelled."""
    store = open_state(postgresql.create_database())
    fill(store, cases=120_000, selected=60_000, labelled=30_000)
    yield store
    store.close()


def plan_of(uow: UnitOfWork, ask: Any) -> list[dict[str, Any]]:
    """The nodes of the plan that PostgreSQL carries out for the first statement of `ask`, the outermost first."""
    connection, statements = uow.cases._connection, list[tuple[str, Any]]()

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    sa.event.listen(connection, "before_cursor_execute", note)
    ask()
    sa.event.remove(connection, "before_cursor_execute", note)
    statement, parameters = statements[0]
    explained = connection.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters).scalar_one()
    node = (json.loads(explained) if isinstance(explained, str) else explained)[0]["Plan"]
    nodes = [node]
    while "Plans" in node:
        node = node["Plans"][0]
        nodes.append(node)
    return nodes


def test_the_next_case_is_one_row_of_an_index(store: State) -> None:
    """No sequential scan and no sort: the first row that the index gives is the answer, and nothing else is read."""
    with store.write() as uow:
        plan = plan_of(uow, lambda: uow.cases.next_in_round(PROJECT, 1))
    assert ["Limit", "LockRows", "Index Scan"] == [node["Node Type"] for node in plan]
    assert "ix_cases_open" == plan[-1]["Index Name"]
    assert (1, 0) == (plan[-1]["Actual Rows"], plan[-1].get("Rows Removed by Filter", 0))


@pytest.mark.parametrize("ranked", [True, False])
def test_a_page_of_cases_is_a_stretch_of_an_index(store: State, ranked: bool) -> None:
    """A page deep in the list costs as much as the first one."""
    after = (110_000, 110_000) if ranked else (0, 110_000)
    with store.read() as uow:
        plan = plan_of(uow, lambda: uow.cases.page(PROJECT, CaseFilter(), ranked=ranked, after=after, limit=50))
    assert ["Limit", "Index Scan"] == [node["Node Type"] for node in plan]
    assert (50, 0) == (plan[-1]["Actual Rows"], plan[-1].get("Rows Removed by Filter", 0))


@pytest.mark.parametrize("ask", ["has_open", "open_in_round"])
def test_whoever_waits_makes_nobody_count(store: State, ask: str) -> None:
    """Whether there is an open case, and how many of the round, come from the index of those: not from all cases."""
    arguments = () if ask == "has_open" else (2,)
    with store.read() as uow:
        plan = plan_of(uow, lambda: getattr(uow.tallies, ask)(PROJECT, *arguments))
    assert "ix_cases_open" in {node.get("Index Name") for node in plan}
    assert not [node for node in plan if "Seq Scan" in node["Node Type"]]
