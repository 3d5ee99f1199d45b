"""docs/annotation.md lists every kind of event that the scheduler delivers."""

from __future__ import annotations

import re
from pathlib import Path

from rekindle_scheduler.domain.events import EventKind

PAGE = Path(__file__).parents[3] / "docs" / "annotation.md"


def test_every_kind_is_on_the_page() -> None:
    """In the order of the enumeration, and no other."""
    section = PAGE.read_text().split("## Events\n")[1].split("\n## ")[0]
    assert [kind.value for kind in EventKind] == re.findall(r"^\| `([\w-]+)` \|", section, re.MULTILINE)
