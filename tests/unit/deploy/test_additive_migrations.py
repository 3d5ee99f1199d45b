"""Migrations only add, so that the release before goes on with the schema of the next."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
MIGRATIONS = sorted(ROOT.glob("services/*/src/*/migrations/versions/0*.py"))
ADDS = {"create_table", "create_index", "add_column", "f", "get_bind"}
#: Anything else, by file and operation, with why the release before is not hurt by it.
ALLOWED = {
    ("rekindle_inference/0004_sources.py", "bulk_insert"): "fills a table that the release before does not know",
    ("rekindle_scheduler/0003_annotation.py", "execute"): "fills a column that the release before does not know",
}


def name_of(path: Path) -> str:
    return f"{path.parents[2].name}/{path.name}"


def refused(source: str, name: str = "") -> list[str]:
    """What a migration does beyond adding."""
    return [problem for problem in _problems(ast.parse(source)) if (name, problem.partition(":")[0]) not in ALLOWED]


def _problems(tree: ast.Module) -> Iterator[str]:
    body = [node for node in tree.body if not (isinstance(node, ast.FunctionDef) and node.name == "downgrade")]
    for node in (inner for outer in body for inner in ast.walk(outer)):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("alembic.op"):
            yield "import: operations are called by their full names here"
        if not (isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "op"):
            continue
        if node.attr not in ADDS:
            yield f"{node.attr}: line {node.lineno}"
    for call in (node for node in ast.walk(ast.Module(body, [])) if isinstance(node, ast.Call)):
        if isinstance(call.func, ast.Attribute) and call.func.attr == "add_column" and not _may_be_left_out(call):
            yield f"add_column: line {call.lineno} adds a column that the release before would have to fill"
        if isinstance(call.func, ast.Attribute) and call.func.attr == "create_index" and _is_unique(call):
            yield f"create_index: line {call.lineno} forbids what the release before may write"


def _may_be_left_out(call: ast.Call) -> bool:
    column = call.args[1]
    assert isinstance(column, ast.Call), "write the column where it is added"
    keywords = {word.arg: word.value for word in column.keywords}
    nullable = keywords.get("nullable")
    is_needed = isinstance(nullable, ast.Constant) and nullable.value is False
    return "server_default" in keywords or not is_needed


def _is_unique(call: ast.Call) -> bool:
    return any(
        word.arg == "unique" and isinstance(word.value, ast.Constant) and word.value.value for word in call.keywords
    )


@pytest.mark.parametrize("path", MIGRATIONS, ids=name_of)
def test_a_migration_only_adds(path: Path) -> None:
    """No table, column, index or name is dropped, altered or renamed, and no new column has to be filled."""
    assert [] == refused(path.read_text(), name_of(path))


def test_all_services_are_looked_at() -> None:
    """Each has migrations, and each exception is one that is still there."""
    assert {"rekindle_scheduler", "rekindle_inference", "rekindle_trainer"} == {p.parents[2].name for p in MIGRATIONS}
    for file, operation in ALLOWED:
        path = next(path for path in MIGRATIONS if name_of(path) == file)
        assert any(problem.startswith(f"{operation}:") for problem in refused(path.read_text()))


@pytest.mark.parametrize(
    "line",
    [
        'op.drop_table("cases")',
        'op.drop_column("cases", "mark")',
        'op.drop_index("ix_cases_next")',
        'op.alter_column("cases", "mark", nullable=False)',
        'op.rename_table("cases", "volumes")',
        'op.execute("DELETE FROM cases")',
        "op.bulk_insert(cases, [])",
        'op.create_unique_constraint("uq", "cases", ["mark"])',
        'op.create_foreign_key("fk", "cases", "volumes", ["a"], ["b"])',
        'op.create_index("ix", "cases", ["mark"], unique=True)',
        'op.add_column("cases", sa.Column("weather", sa.Text, nullable=False))',
        'with op.batch_alter_table("cases") as batch:\n        batch.drop_column("mark")',
        '(lambda f: f("cases"))(op.drop_table)',
    ],
)
def test_what_takes_away_is_refused(line: str) -> None:
    """Each way to hurt the release before, also in a function that `upgrade` calls; undoing is nobody's harm."""
    assert refused(f"def upgrade() -> None:\n    helper()\n\ndef helper() -> None:\n    {line}\n")
    assert not refused(f"def downgrade() -> None:\n    {line}\n")


@pytest.mark.parametrize(
    "line",
    [
        'op.create_table("weather", sa.Column("id", sa.Text, primary_key=True))',
        'op.create_index("ix", "cases", ["mark"])',
        'op.add_column("cases", sa.Column("weather", sa.Text))',
        'op.add_column("cases", sa.Column("weather", sa.Text, nullable=False, server_default="fair"))',
    ],
)
def test_what_adds_is_allowed(line: str) -> None:
    """Tables, indices, and columns that may be left out."""
    assert [] == refused(f"def upgrade() -> None:\n    {line}\n")
