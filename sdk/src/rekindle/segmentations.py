"""Durable segmentations: they are requested once and done even if the caller goes away."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, Self, get_args

from rekindle._call import new_request_id
from rekindle._services import Services
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import segmentations_pb2 as segmentations
from rekindle.convert import name_of, number_of
from rekindle.errors import DeadlineExceeded, IllegalTransition
from rekindle.records import moment
from rekindle.results import Result

PriorityName = Literal["stat", "routine", "batch"]
PRIORITIES: tuple[str, ...] = get_args(PriorityName)
ENDED = frozenset({"succeeded", "failed", "cancelled", "expired"})
#: Length of a watch; one that is still followed then begins again.
WATCH_S = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One change of a segmentation."""

    cursor: int
    state: str
    reason: str
    slices_done: int
    slices_total: int
    #: Place in the queue: 1 is the next to start, 0 is not queued.
    queue_position: int


class DurableSegmentation:
    """A handle on one durable segmentation; `refresh` brings it up to date."""

    def __init__(self, services: Services, segmentation: segmentations.Segmentation) -> None:
        self._services = services
        self._segmentation = segmentation

    @property
    def id(self) -> str:
        return self._segmentation.segmentation_id

    @property
    def volume_id(self) -> str:
        return self._segmentation.volume_id

    @property
    def model_version_id(self) -> str:
        """Empty until work has begun, where the active version was asked for."""
        return self._segmentation.model_version_id

    @property
    def priority(self) -> str:
        """ "stat", "routine" or "batch"."""
        return name_of(inference.Priority, self._segmentation.priority)

    @property
    def state(self) -> str:
        """ "queued", "running", "succeeded", "failed", "cancelled" or "expired"; see `reason`."""
        return name_of(segmentations.SegmentationState, self._segmentation.state)

    @property
    def reason(self) -> str:
        return self._segmentation.reason

    @property
    def progress(self) -> tuple[int, int]:
        """Slices done, slices in all."""
        return self._segmentation.slices_done, self._segmentation.slices_total

    @property
    def queue_position(self) -> int:
        return self._segmentation.queue_position

    @property
    def result_id(self) -> str:
        """Of the delivered mask, once it has succeeded."""
        return self._segmentation.result_id

    @property
    def created(self) -> datetime | None:
        return moment(self._segmentation, "create_time")

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    def refresh(self) -> Self:
        request = segmentations.GetSegmentationRequest(
            project_id=self._segmentation.project_id, segmentation_id=self.id
        )
        answer = self._services.segmentations.GetSegmentation(request)
        self._segmentation = answer.segmentation
        return self

    def cancel(self) -> Self:
        """Cancels it, also while it runs. Raises IllegalTransition where it has ended otherwise."""
        request = segmentations.CancelSegmentationRequest(
            request_id=new_request_id(), project_id=self._segmentation.project_id, segmentation_id=self.id
        )
        answer = self._services.segmentations.CancelSegmentation(request)
        self._segmentation = answer.segmentation
        return self

    def watch(self, *, after_cursor: int = 0, timeout_s: float | None = None) -> Iterator[Progress]:
        """Yields each change until it has ended; the handle is up to date with each.

        Goes on after the last change when the service was away for a moment.
        """

        def changes(cursor: int) -> Iterator[Progress]:
            request = segmentations.WatchSegmentationRequest(
                project_id=self._segmentation.project_id, segmentation_id=self.id, after_cursor=cursor
            )
            for answer in self._services.segmentations.WatchSegmentation(request, timeout=timeout_s or WATCH_S):
                self._segmentation = answer.segmentation
                yield self._told(answer.cursor)

        return self._services.caller.follow(changes, after_cursor)

    def wait(self, timeout_s: float = 3600.0) -> Self:
        """Returns once it has ended, however. Raises DeadlineExceeded after `timeout_s`; it goes on all the same."""
        deadline = time.monotonic() + timeout_s
        while not self.has_ended:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise DeadlineExceeded(f"the segmentation has not ended within {timeout_s:.0f} s: it is {self.state}")
            with suppress(DeadlineExceeded):
                for _ in self.watch(timeout_s=left_s):
                    pass
            self.refresh()
        return self

    def result(self, timeout_s: float = 3600.0) -> Result:
        """The delivered mask, once there is one. Raises IllegalTransition where it ended without."""
        self.wait(timeout_s)
        if self.state != "succeeded":
            why = f": {self.reason}" if self.reason else ""
            raise IllegalTransition(
                f"the segmentation has {self.state}{why}",
                reason=self._segmentation.failure_reason or "NO_RESULT",
            )
        request = segmentations.GetResultRequest(
            project_id=self._segmentation.project_id, result_id=self._segmentation.result_id
        )
        answer = self._services.segmentations.GetResult(request)
        return Result.from_proto(answer.result, self._services)

    def _told(self, cursor: int) -> Progress:
        done, total = self.progress
        return Progress(
            cursor=cursor,
            state=self.state,
            reason=self.reason,
            slices_done=done,
            slices_total=total,
            queue_position=self.queue_position,
        )


def priority_value(name: str) -> inference.Priority.ValueType:
    """The number of "stat", "routine" or "batch"."""
    return number_of(inference.Priority, name)  # type: ignore[return-value]
