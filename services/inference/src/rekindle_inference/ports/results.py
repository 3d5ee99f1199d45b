"""Durable segmentations and the feed of results, as a transaction sees them."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Protocol

from rekindle_inference.domain.records import (
    ProjectId,
    VolumeId,
)
from rekindle_inference.domain.results import Result, ResultId
from rekindle_inference.domain.segmentations import Priority, Segmentation, SegmentationId, SegmentationState


class SegmentationReads(Protocol):
    """Durable segmentations, to be looked at."""

    def get(self, project_id: ProjectId, segmentation_id: SegmentationId) -> Segmentation | None: ...

    def page(
        self,
        project_id: ProjectId,
        *,
        states: frozenset[SegmentationState],
        volume_id: VolumeId | None,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Segmentation]:
        """Newest first, behind the moment and id `after`; no states means all."""
        ...

    def positions(self, ids: Iterable[SegmentationId]) -> dict[SegmentationId, int]:
        """Place among the queued of the same priority, from 1; without those that are not queued."""
        ...

    def queued(self, project_id: ProjectId, priority: Priority) -> int: ...

    def count(self, states: Iterable[SegmentationState]) -> dict[SegmentationState, int]:
        """How many of all projects are in these states; without those in which there are none."""
        ...


class SegmentationWrites(SegmentationReads, Protocol):
    """Durable segmentations, to be changed."""

    def add(self, segmentation: Segmentation) -> None: ...

    def lock(self, segmentation_id: SegmentationId) -> Segmentation | None:
        """As it is now; nobody else changes it before this transaction ends."""
        ...

    def update(self, segmentation: Segmentation) -> None: ...

    def lock_next(self, priorities: Iterable[Priority]) -> Segmentation | None:
        """The first that may be taken up: queued, or left behind by a worker that is gone. Locked, or passed over."""
        ...

    def lock_expired(self, limit: int) -> list[Segmentation]:
        """Those that nobody works on and whose time to live is over."""
        ...

    def keep(self, segmentation_id: SegmentationId, claim: str, until: datetime, progress: tuple[int, int]) -> bool:
        """Extend a claim and note (slices done, in all); False where the claim is no longer the one that holds."""
        ...


class ResultReads(Protocol):
    """The feed of results."""

    def get(self, project_id: ProjectId, result_id: ResultId) -> Result | None: ...

    def of_image(self, project_id: ProjectId, image: VolumeId, *, before: int | None, limit: int) -> list[Result]:
        """Newest first, with cursors below `before`."""
        ...

    def after(self, project_id: ProjectId, cursor: int, *, limit: int) -> list[Result]:
        """In the order of cursors."""
        ...

    def head(self, project_id: ProjectId, image: VolumeId) -> Result | None:
        """The newest word on an image."""
        ...

    def newest_of_submission(self, project_id: ProjectId, submission_id: str) -> Result | None: ...


class ResultWrites(ResultReads, Protocol):
    """The feed of results, to be added to."""

    def lock_feed(self, project_id: ProjectId) -> None:
        """Let nobody else add to the project's feed before this transaction has ended, so that none comes late."""
        ...

    def next_cursor(self, project_id: ProjectId) -> int:
        """Of a feed that is locked."""
        ...

    def add(self, result: Result) -> None: ...
