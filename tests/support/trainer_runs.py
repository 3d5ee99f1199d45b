"""What tests of training runs have in common."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

from rekindle_trainer.domain.runs import Attempt
from rekindle_trainer.domain.spec import RunSpec

MakeSpec = Callable[..., RunSpec]
#: Exit code of a process that SIGKILL ended.
KILLED = -9


def sha(text: str) -> str:
    """A digest, of what is no matter."""
    return hashlib.sha256(text.encode()).hexdigest()


def attempt_of(service: Any, run_id: str, number: int) -> Attempt:
    """As it is stored."""
    with service.state.read() as tx:
        found = tx.find_attempt(run_id, number)
    assert found is not None
    return found
