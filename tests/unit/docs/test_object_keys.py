"""Where objects lie is said in one place."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from rekindle_servicekit import layout

ROOT = Path(__file__).parents[3]
HOME = ROOT / "libs" / "servicekit" / "src" / "rekindle_servicekit" / "layout.py"
FOLDERS = (layout.ORIGINALS, layout.CANONICALS, layout.PACKAGES, layout.WEIGHTS, layout.UPLOADS, layout.RUNS)
#: Rows of tables, as findings name them, that are called like a folder.
ROWS = ("volumes/{volume.volume_id}", "runs/{run.run_id}")


def texts(path: Path) -> Iterator[str]:
    """Texts of a module as they are written, docstrings left out."""
    tree = ast.parse(path.read_text())
    docstrings = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            yield ast.unparse(node)[2:-1]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings | parts:
            yield node.value


def test_no_other_module_spells_a_key() -> None:
    """Writers and readers of the object store take its keys from the layout."""
    modules = [path for folder in ("libs", "services", "bench") for path in (ROOT / folder).rglob("*.py")]
    spelt = {
        f"{path.relative_to(ROOT)}: {text}"
        for path in modules
        if path != HOME and ".venv" not in path.parts
        for text in texts(path)
        if text.startswith(FOLDERS) and text not in ROWS
    }
    assert set() == spelt
    assert any(text.startswith(FOLDERS) for text in texts(HOME))
