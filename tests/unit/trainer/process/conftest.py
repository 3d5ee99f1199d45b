"""Synthetic labelled volumes in an object store, small enough to train on within seconds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import box_runs
import pytest
import torch
from rekindle_servicekit.objects import MemoryObjects


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


SpecMaker = Callable[..., dict[str, Any]]


@pytest.fixture(scope="session")
def put_spec() -> SpecMaker:
    """Store a spec of two seed volumes per modality, two target cases and one held-out case, and return it."""
    return box_runs.put_spec


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()
