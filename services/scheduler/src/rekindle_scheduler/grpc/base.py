"""Base of the servicer's parts."""

from __future__ import annotations

from dataclasses import dataclass

from rekindle_servicekit import handlers

from rekindle_scheduler.ports import Inference
from rekindle_scheduler.state import UnitOfWork


@dataclass(frozen=True, kw_only=True)
class Backend(handlers.Backend[UnitOfWork]):
    """State, threads and the inference service that the servicer works with."""

    inference: Inference


class Handlers(handlers.Handlers[UnitOfWork]):
    """Base of the servicer's parts, one for each noun."""

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)
        self._inference = backend.inference
