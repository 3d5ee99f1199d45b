"""Progress of a run as small numbered objects that the trainer service tails."""

from __future__ import annotations

import time
from typing import Any

from rekindle_servicekit.layout import RunKeys
from rekindle_servicekit.objects import Objects

from rekindle_trainer.domain.spec import compact_json

INTERVAL_S = 2.0
#: A new epoch is reported at once, but epochs of a few milliseconds are not all of interest.
EPOCH_INTERVAL_S = 0.5


class MetricsWriter:
    """Writes ``runs/<run>/<attempt>/metrics/<n>.json``, n from 000001 on without gaps."""

    def __init__(self, objects: Objects, run_id: str, attempt: int) -> None:
        self._objects = objects
        self._keys = RunKeys(run_id).attempt(attempt)
        # An attempt that was started again goes on counting.
        self._count = sum(1 for _ in objects.list(self._keys.metrics))
        self._last_time = 0.0
        self._last_epoch: tuple[str, int] | None = None

    def report(
        self,
        *,
        phase: str,
        step: int,
        epoch: int,
        epochs: int,
        steps: int = 0,
        loss: float | None = None,
        dice: float | None = None,
        lr: float | None = None,
        eta_seconds: float | None = None,
    ) -> None:
        """Write a record where one is due: about every two seconds, at each new epoch, at each new phase."""
        since = time.monotonic() - self._last_time
        previous_phase = self._last_epoch[0] if self._last_epoch else None
        new_epoch = self._last_epoch != (phase, epoch) and since >= EPOCH_INTERVAL_S
        if not (phase != previous_phase or new_epoch or since >= INTERVAL_S):
            return
        record: dict[str, Any] = {
            "phase": phase, "step": step, "steps": steps, "epoch": epoch, "epochs": epochs,
            "loss": loss, "dice": dice, "lr": lr, "eta_seconds": eta_seconds,
        }  # fmt: skip
        self._count += 1
        self._objects.put(self._keys.metric(self._count), compact_json(record))
        self._last_time, self._last_epoch = time.monotonic(), (phase, epoch)


class NullMetrics:
    """Reports nothing: another process of the attempt does."""

    def report(self, **_: Any) -> None: ...
