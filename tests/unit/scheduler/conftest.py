"""Use cases of the scheduler over a real store, without services around it."""

from __future__ import annotations

from pathlib import Path

import pytest
from scheduler_ports import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A project that is annotated, with two cases that have coarse labels."""
    bench = Bench(tmp_path)
    bench.annotating("v1", "v2")
    return bench
