"""Metrics of a run: what its processes report, numbered through all of its attempts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricRecord:
    """One record as a process wrote it. Numbers that it did not know are None."""

    #: ``prepare``, the name of a training phase, or ``evaluate``.
    phase: str
    step: int = 0
    steps: int = 0
    epoch: int = 0
    epochs: int = 0
    loss: float | None = None
    learning_rate: float | None = None
    eta_seconds: float | None = None
    dice: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """A record in its place within the run."""

    #: Grows by 1 from 1 on through all attempts of the run, so that a watcher can go on from where it was.
    cursor: int
    attempt: int
    #: Number of the record within its attempt, from 1.
    number: int
    #: When the service saw it.
    time: datetime
    record: MetricRecord


def parse_metric(raw: Any) -> MetricRecord:
    """A record from its JSON form; ValueError where it is none."""
    if not isinstance(raw, Mapping) or not isinstance(raw.get("phase"), str):
        raise ValueError("a metrics record is an object with a phase")
    return MetricRecord(
        phase=raw["phase"],
        step=_count(raw, "step"),
        steps=_count(raw, "steps"),
        epoch=_count(raw, "epoch"),
        epochs=_count(raw, "epochs"),
        loss=_number(raw, "loss"),
        learning_rate=_number(raw, "lr"),
        eta_seconds=_number(raw, "eta_seconds"),
        dice=_number(raw, "dice"),
    )


def number_metrics(
    records: Sequence[tuple[int, MetricRecord]], *, attempt: int, seen: int, last_cursor: int, now: datetime
) -> list[Metric]:
    """Give the records (number within the attempt, record) that are newer than `seen` the next cursors."""
    new = sorted((item for item in records if item[0] > seen), key=lambda item: item[0])
    return [
        Metric(cursor=last_cursor + offset, attempt=attempt, number=number, time=now, record=record)
        for offset, (number, record) in enumerate(new, start=1)
    ]


def _count(raw: Mapping[str, Any], key: str) -> int:
    value = raw.get(key) or 0
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{key} of a metrics record must be an integer")
    return value


def _number(raw: Mapping[str, Any], key: str) -> float | None:
    value = raw.get(key)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"{key} of a metrics record must be a finite number")
    return float(value)
