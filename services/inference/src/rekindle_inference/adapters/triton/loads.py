"""Loads under way: one per model, each in a thread of its own, so that a stuck one holds up nobody else."""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field

from rekindle.errors import DependencyUnavailable
from rekindle_servicekit.workers import Cancellation

_POLL_S = 0.05


@dataclass(frozen=True, slots=True)
class _Load:
    outcome: Future[None] = field(default_factory=Future[None])
    began: float = field(default_factory=time.monotonic)


class Loads:
    """Callers for one model wait for one load."""

    def __init__(self) -> None:
        self._running: dict[str, _Load] = {}
        self._lock = threading.Lock()

    def is_running(self, name: str) -> bool:
        with self._lock:
            return name in self._running

    def run(self, name: str, load: Callable[[], None], wait_s: float | None, cancellation: Cancellation | None) -> None:
        """Until `load`, or the one of that name that runs already, has ended; its error is raised.

        DependencyUnavailable once it has been running for `wait_s`, while it goes on; Cancelled, DeadlineExceeded.
        """
        with self._lock:
            running = self._running.get(name)
            if running is None:
                running = self._running[name] = _Load()
                job = contextvars.copy_context().run
                threading.Thread(
                    target=job, args=(self._work, name, load, running), name="model-load", daemon=True
                ).start()
        while True:
            try:
                return running.outcome.result(timeout=_POLL_S)
            except FutureTimeoutError:
                if running.outcome.done():
                    raise
            if cancellation is not None:
                cancellation.raise_if_set()
            if wait_s is not None and time.monotonic() - running.began > wait_s:
                raise DependencyUnavailable(
                    "the model server (Triton) is still loading the model: try again later",
                    reason="MODEL_LOADING",
                    retry_after_s=5.0,
                )

    def _work(self, name: str, load: Callable[[], None], running: _Load) -> None:
        try:
            load()
        except BaseException as error:
            failure: BaseException | None = error
        else:
            failure = None
        # Gone before anybody learns the outcome: whoever tries again starts a new load.
        with self._lock:
            del self._running[name]
        if failure is None:
            running.outcome.set_result(None)
        else:
            running.outcome.set_exception(failure)
