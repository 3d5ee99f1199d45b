"""Each shared word and record is defined once."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
VOCABULARY = ROOT / "sdk" / "src" / "rekindle" / "vocabulary.py"
PAGES = ROOT / "libs" / "servicekit" / "src" / "rekindle_servicekit" / "pages.py"
#: Words that the annotation tool's clock takes as plain text too; it has no fields of its own.
SUBCLASSES = {"TimeSegment": "sdk/src/rekindle/timer.py"}


def defined(path: Path) -> dict[str, ast.ClassDef]:
    """Classes at the top of a module."""
    return {node.name: node for node in ast.parse(path.read_text()).body if isinstance(node, ast.ClassDef)}


def sources() -> Iterator[Path]:
    """Hand-written modules of all distributions."""
    for folder in ("sdk/src", "libs", "services", "deploy/local/src"):
        for path in (ROOT / folder).rglob("*.py"):
            if "rekindle/api/" not in path.as_posix():
                yield path


@pytest.mark.parametrize(("home", "least"), [(VOCABULARY, 20), (PAGES, 1)], ids=["vocabulary", "pages"])
def test_a_shared_record_has_one_class(home: Path, least: int) -> None:
    """No module but its home defines a class of its name; what is there is the message and this one class."""
    names = set(defined(home))
    assert len(names) >= least
    again = {
        f"{path.relative_to(ROOT)}: {name}"
        for path in sources()
        if path != home
        for name in names & set(defined(path))
        if SUBCLASSES.get(name) != str(path.relative_to(ROOT))
    }
    assert set() == again


@pytest.mark.parametrize(("name", "place"), SUBCLASSES.items())
def test_a_subclass_defines_no_field(name: str, place: str) -> None:
    """What the vocabulary's record is made of is not said a second time by its subclass."""
    record = defined(ROOT / place)[name]
    assert [f"vocabulary.{name}"] == [ast.unparse(base) for base in record.bases]
    assert [] == [ast.unparse(node) for node in record.body if isinstance(node, ast.AnnAssign)]
