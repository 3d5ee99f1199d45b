"""Durable segmentations in SQL."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from rekindle_inference.domain.records import ProjectId, VolumeId
from rekindle_inference.domain.segmentations import Priority, Segmentation, SegmentationId, SegmentationState
from rekindle_inference.state.rows import Repository, older_than, record_of, row_of
from rekindle_inference.state.tables import segmentations

_QUEUE_ORDER = (segmentations.c.lane, segmentations.c.due_at, segmentations.c.segmentation_id)


class Segmentations(Repository):
    """Durable segmentations, and the queue that the unfinished ones stand in."""

    def get(self, project_id: ProjectId, segmentation_id: SegmentationId) -> Segmentation | None:
        named = sa.and_(segmentations.c.project_id == project_id, segmentations.c.segmentation_id == segmentation_id)
        return self._one(sa.select(segmentations).where(named))

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
        query = sa.select(segmentations).where(segmentations.c.project_id == project_id)
        if states:
            query = query.where(segmentations.c.state.in_(states))
        if volume_id is not None:
            query = query.where(segmentations.c.volume_id == volume_id)
        if after is not None:
            query = query.where(older_than(after, segmentations.c.created_at, segmentations.c.segmentation_id))
        newest = (segmentations.c.created_at.desc(), segmentations.c.segmentation_id.desc())
        return self._all(query.order_by(*newest).limit(limit))

    def positions(self, ids: Iterable[SegmentationId]) -> dict[SegmentationId, int]:
        """Place among the queued of the same priority, from 1; without those that are not queued."""
        place = sa.func.row_number().over(partition_by=segmentations.c.priority, order_by=_QUEUE_ORDER)
        queue = (
            sa.select(segmentations.c.segmentation_id, place.label("place"))
            .where(segmentations.c.state == SegmentationState.QUEUED)
            .subquery()
        )
        rows = self._connection.execute(sa.select(queue).where(queue.c.segmentation_id.in_(list(ids))))
        return {SegmentationId(row.segmentation_id): int(row.place) for row in rows}

    def queued(self, project_id: ProjectId, priority: Priority) -> int:
        count = sa.select(sa.func.count()).where(
            segmentations.c.state == SegmentationState.QUEUED,
            segmentations.c.project_id == project_id,
            segmentations.c.priority == priority,
        )
        return int(self._connection.execute(count).scalar_one())

    def count(self, states: Iterable[SegmentationState]) -> dict[SegmentationState, int]:
        """How many of all projects are in these states; without those in which there are none."""
        query = (
            sa.select(segmentations.c.state, sa.func.count())
            .where(segmentations.c.state.in_(list(states)))
            .group_by(segmentations.c.state)
        )
        return {SegmentationState(state): int(number) for state, number in self._connection.execute(query)}

    def add(self, segmentation: Segmentation) -> None:
        self._insert(segmentations, row_of(segmentations, segmentation))

    def lock(self, segmentation_id: SegmentationId) -> Segmentation | None:
        """As it is now; nobody else changes it before this transaction ends."""
        query = sa.select(segmentations).where(segmentations.c.segmentation_id == segmentation_id)
        return self._one(query.with_for_update())

    def update(self, segmentation: Segmentation) -> None:
        same = segmentations.c.segmentation_id == segmentation.segmentation_id
        row = row_of(segmentations, segmentation)
        self._connection.execute(sa.update(segmentations).where(same).values(row))

    def lock_next(self, priorities: Iterable[Priority]) -> Segmentation | None:
        """The first that may be taken up: queued, or left behind by a worker that is gone. Locked, or passed over."""
        query = (
            sa.select(segmentations)
            .where(self._free(), segmentations.c.expire_at > self._now)
            .where(segmentations.c.priority.in_(list(priorities)))
            .order_by(*_QUEUE_ORDER)
            .limit(1)
        )
        return self._one(query.with_for_update(skip_locked=True))

    def lock_expired(self, limit: int) -> list[Segmentation]:
        """Those that nobody works on and whose time to live is over."""
        over = segmentations.c.expire_at <= self._now
        query = sa.select(segmentations).where(sa.or_(self._queued(), self._left_behind()), over).limit(limit)
        return self._all(query.with_for_update(skip_locked=True))

    def extend_claim(
        self, segmentation_id: SegmentationId, claim: str, until: datetime, progress: tuple[int, int]
    ) -> bool:
        """Also note (slices done, in all); False where the claim is no longer the one that holds."""
        done, total = progress
        moved = sa.or_(segmentations.c.slices_done != done, segmentations.c.slices_total != total)
        update = (
            sa.update(segmentations)
            .where(segmentations.c.segmentation_id == segmentation_id, segmentations.c.claim == claim)
            .values(
                claim_until=until,
                slices_done=done,
                slices_total=total,
                revision=segmentations.c.revision + sa.case((moved, 1), else_=0),
            )
        )
        return self._connection.execute(update).rowcount == 1

    def _free(self) -> sa.ColumnElement[bool]:
        rested = sa.or_(segmentations.c.not_before.is_(None), segmentations.c.not_before <= self._now)
        return sa.or_(sa.and_(self._queued(), rested), self._left_behind())

    def _queued(self) -> sa.ColumnElement[bool]:
        return segmentations.c.state == SegmentationState.QUEUED

    def _left_behind(self) -> sa.ColumnElement[bool]:
        return sa.and_(segmentations.c.state == SegmentationState.RUNNING, segmentations.c.claim_until < self._now)

    def _one(self, query: sa.Select[Any]) -> Segmentation | None:
        rows = self._all(query)
        return rows[0] if rows else None

    def _all(self, query: sa.Select[Any]) -> list[Segmentation]:
        return [record_of(Segmentation, row) for row in self._mappings(query)]
