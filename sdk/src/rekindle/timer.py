"""Measures an annotator's active time: what they do counts, an untouched screen does not."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from rekindle import vocabulary
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.convert import from_proto, name_of, to_proto

if TYPE_CHECKING:
    from rekindle.vocabulary import TimeKind, TimeSource

TimeKindName = Literal["reading", "editing", "waiting"]
TimeSourceName = Literal["measured", "inferred", "simulated"]


class TimeSegment(vocabulary.TimeSegment):
    """A stretch of an annotator's time on one case; words may be given as plain text."""

    __slots__ = ()

    if TYPE_CHECKING:  # words may be given as plain text

        def __init__(
            self,
            *,
            kind: TimeKind | TimeKindName,
            active_seconds: float,
            start_time: datetime,
            source: TimeSource | TimeSourceName = TimeSource.MEASURED,
            tool: str = "",
        ) -> None: ...

    def to_dict(self) -> dict[str, object]:
        """As JSON can hold it; `from_dict` gives the same segment back."""
        return {**asdict(self), "start_time": self.start_time.isoformat()}

    @classmethod
    def from_dict(cls, written: Mapping[str, Any]) -> TimeSegment:
        """Raises KeyError, TypeError or ValueError where `written` is not a segment."""
        fields = {name: value for name, value in written.items() if name != "start_time"}
        return cls(**fields, start_time=datetime.fromisoformat(written["start_time"]))

    @classmethod
    def from_proto(cls, message: common.TimeSegment) -> TimeSegment:
        # By name, so that a newer service's words can be read.
        kind: Any = name_of(common.TimeKind, message.kind)
        source: Any = name_of(common.TimeSource, message.source)
        return from_proto(message, cls, kind=kind, source=source)

    def to_proto(self) -> common.TimeSegment:
        return to_proto(self, common.TimeSegment, start_time=self.start_time.astimezone(UTC))


class ActiveTimer:
    """Collects time segments. A tool calls `touch` at every sign of the annotator (mouse, key, scroll).

    The time between two touches counts as active when it is at most `idle_after_s`; a longer gap counts as
    nothing. Safe to use from several threads.
    """

    def __init__(
        self, *, idle_after_s: float = 30.0, tool: str = "", clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.idle_after_s = idle_after_s
        self.tool = tool
        self._clock = clock
        self._lock = threading.RLock()
        self._done: list[TimeSegment] = []
        self._open: TimeSegment | None = None
        self._last_touch = 0.0
        #: Moment of the clock from which the open segment counts, if it is later than the last touch.
        self._counted_from = 0.0

    def start(self, kind: TimeKindName = "reading") -> None:
        """Begins a segment of `kind`, ending the one before."""
        with self._lock:
            self.stop()
            self._open = TimeSegment(kind=kind, active_seconds=0.0, start_time=datetime.now(UTC), tool=self.tool)
            self._last_touch = self._counted_from = self._clock()

    def touch(self) -> None:
        """A sign of the annotator: the time since the last one was active, unless the gap is idle."""
        with self._lock:
            now = self._clock()
            self._open = self._at(now)
            self._last_touch = now

    def stop(self) -> None:
        """Ends the open segment; segments without active time are left out."""
        with self._lock:
            self._done = self.segments()
            self._open = None

    def cut(self) -> list[TimeSegment]:
        """Ends the open segment and goes on with another of its kind; all that has ended, which will not change.

        What was sent with a draft can so be sent again, and is known again.
        """
        with self._lock:
            open_one, last_touch = self._open, self._last_touch
            self.stop()
            if open_one is not None:
                self._open = replace(open_one, active_seconds=0.0, start_time=datetime.now(UTC))
                self._last_touch, self._counted_from = last_touch, self._clock()
            return list(self._done)

    def segments(self) -> list[TimeSegment]:
        """Everything measured so far, the open segment up to now included. Asking is no sign of the annotator."""
        with self._lock:
            current = self._at(self._clock())
            return [*self._done, *([current] if current and current.active_seconds > 0 else [])]

    def restore(self, segments: list[TimeSegment]) -> None:
        """Puts what an earlier timer measured before what this one measures; a segment that is there counts once."""
        with self._lock:
            self._done = [*segments, *(segment for segment in self._done if segment not in segments)]

    def _at(self, now: float) -> TimeSegment | None:
        """The open segment as it is at a moment of the clock."""
        if self._open is None:
            return None
        gap_s = now - self._last_touch
        if gap_s > self.idle_after_s:
            return self._open
        counted_s = now - max(self._last_touch, self._counted_from)
        return replace(self._open, active_seconds=self._open.active_seconds + counted_s)
