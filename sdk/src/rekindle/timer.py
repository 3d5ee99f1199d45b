"""Measures an annotator's active time: what they do counts, an untouched screen does not."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Literal

from google.protobuf.timestamp_pb2 import Timestamp

from rekindle.api.common.v1 import common_pb2 as common
from rekindle.config import enum_value

TimeKindName = Literal["reading", "editing", "waiting"]
TimeSourceName = Literal["measured", "inferred", "simulated"]


@dataclass(frozen=True, kw_only=True)
class TimeSegment:
    """A stretch of an annotator's time on one case."""

    kind: TimeKindName
    active_seconds: float
    start_time: datetime
    source: TimeSourceName = "measured"
    #: The tool that measured it.
    tool: str = ""

    def to_proto(self) -> common.TimeSegment:
        start = Timestamp()
        start.FromDatetime(self.start_time.astimezone(UTC))
        return common.TimeSegment(
            kind=enum_value(common.TimeKind, "TIME_KIND", self.kind),  # type: ignore[arg-type]
            source=enum_value(common.TimeSource, "TIME_SOURCE", self.source),  # type: ignore[arg-type]
            start_time=start,
            active_seconds=self.active_seconds,
            tool=self.tool,
        )


class ActiveTimer:
    """Collects time segments. A tool calls `touch` at every sign of the annotator (mouse, key, scroll).

    The time between two touches counts as active up to `idle_after_s`; a longer gap counts as nothing.
    """

    def __init__(
        self, *, idle_after_s: float = 30.0, tool: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.idle_after_s = idle_after_s
        self.tool = tool
        self._clock = clock
        self._done: list[TimeSegment] = []
        self._open: TimeSegment | None = None
        self._last_touch = 0.0

    def start(self, kind: TimeKindName = "reading") -> None:
        """Begins a segment of `kind`, ending the one before."""
        self.stop()
        self._open = TimeSegment(kind=kind, active_seconds=0.0, start_time=datetime.now(UTC), tool=self.tool)
        self._last_touch = self._clock()

    def touch(self) -> None:
        """A sign of the annotator: the time since the last one was active, unless the gap is idle."""
        if self._open is None:
            return
        now = self._clock()
        gap_s = now - self._last_touch
        self._last_touch = now
        if gap_s <= self.idle_after_s:
            self._open = replace(self._open, active_seconds=self._open.active_seconds + gap_s)

    def stop(self) -> None:
        """Ends the open segment; segments without active time are left out."""
        self.touch()
        if self._open is not None and self._open.active_seconds > 0:
            self._done.append(self._open)
        self._open = None

    def segments(self) -> list[TimeSegment]:
        """Everything measured so far, the open segment up to now included."""
        self.touch()
        open_segment = [self._open] if self._open is not None and self._open.active_seconds > 0 else []
        return [*self._done, *open_segment]

    def restore(self, segments: list[TimeSegment]) -> None:
        """Puts back what an earlier timer measured, before anything is measured anew."""
        self._done = [*segments, *self._done]
