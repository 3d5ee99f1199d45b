"""Words that people read."""

from __future__ import annotations

import pytest
from rekindle_scheduler.domain.text import counted


@pytest.mark.parametrize(("number", "expected"), [(0, "0 cases"), (1, "1 case"), (2, "2 cases")])
def test_numbers_agree_with_their_nouns(number: int, expected: str) -> None:
    """One is one; everything else is several."""
    assert expected == counted(number, "case")
