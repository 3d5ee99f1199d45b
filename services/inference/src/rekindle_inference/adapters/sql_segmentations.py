"""Durable segmentations in SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from datetime import datetime
from typing import Any

import sqlalchemy as sa

from rekindle_inference.adapters.tables import segmentations
from rekindle_inference.domain.records import ProjectId, VolumeId
from rekindle_inference.domain.segmentations import Priority, Segmentation, SegmentationId, SegmentationState


def older_than(
    place: tuple[datetime, str], moment: sa.ColumnElement[datetime], row_id: sa.ColumnElement[str]
) -> sa.ColumnElement[bool]:
    """Rows behind a place in a list that is ordered by moment and id, newest first."""
    created_at, place_id = place
    return sa.or_(moment < created_at, sa.and_(moment == created_at, row_id < place_id))


_QUEUE_ORDER = (segmentations.c.lane, segmentations.c.due_at, segmentations.c.segmentation_id)


class SqlSegmentations:
    """The part of a transaction that deals with durable segmentations."""

    def __init__(self, connection: sa.Connection, now: datetime) -> None:
        self._connection = connection
        self._now = now

    def get(self, project_id: ProjectId, segmentation_id: SegmentationId) -> Segmentation | None:
        is_it = sa.and_(segmentations.c.project_id == project_id, segmentations.c.segmentation_id == segmentation_id)
        return self._one(sa.select(segmentations).where(is_it))

    def page(
        self,
        project_id: ProjectId,
        *,
        states: frozenset[SegmentationState],
        volume_id: VolumeId | None,
        after: tuple[datetime, str] | None,
        limit: int,
    ) -> list[Segmentation]:
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
        place = sa.func.row_number().over(partition_by=segmentations.c.priority, order_by=_QUEUE_ORDER)
        queue = (
            sa.select(segmentations.c.segmentation_id, place.label("place"))
            .where(segmentations.c.state == SegmentationState.QUEUED)
            .subquery()
        )
        found = self._connection.execute(sa.select(queue).where(queue.c.segmentation_id.in_(list(ids))))
        return {SegmentationId(row.segmentation_id): int(row.place) for row in found}

    def queued(self, project_id: ProjectId, priority: Priority) -> int:
        count = sa.select(sa.func.count()).where(
            segmentations.c.state == SegmentationState.QUEUED,
            segmentations.c.project_id == project_id,
            segmentations.c.priority == priority,
        )
        return int(self._connection.execute(count).scalar_one())

    def count(self, states: Iterable[SegmentationState]) -> dict[SegmentationState, int]:
        query = (
            sa.select(segmentations.c.state, sa.func.count())
            .where(segmentations.c.state.in_(list(states)))
            .group_by(segmentations.c.state)
        )
        return {SegmentationState(state): int(number) for state, number in self._connection.execute(query)}

    def add(self, segmentation: Segmentation) -> None:
        self._connection.execute(sa.insert(segmentations).values(asdict(segmentation)))

    def lock(self, segmentation_id: SegmentationId) -> Segmentation | None:
        query = sa.select(segmentations).where(segmentations.c.segmentation_id == segmentation_id)
        return self._one(query.with_for_update())

    def update(self, segmentation: Segmentation) -> None:
        is_it = segmentations.c.segmentation_id == segmentation.segmentation_id
        self._connection.execute(sa.update(segmentations).where(is_it).values(asdict(segmentation)))

    def lock_next(self, priorities: Iterable[Priority]) -> Segmentation | None:
        query = (
            sa.select(segmentations)
            .where(self._free(), segmentations.c.expire_at > self._now)
            .where(segmentations.c.priority.in_(list(priorities)))
            .order_by(*_QUEUE_ORDER)
            .limit(1)
        )
        return self._one(query.with_for_update(skip_locked=True))

    def lock_expired(self, limit: int) -> list[Segmentation]:
        over = segmentations.c.expire_at <= self._now
        query = sa.select(segmentations).where(sa.or_(self._queued(), self._left_behind()), over).limit(limit)
        return self._all(query.with_for_update(skip_locked=True))

    def keep(self, segmentation_id: SegmentationId, claim: str, until: datetime, progress: tuple[int, int]) -> bool:
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
        found = self._all(query)
        return found[0] if found else None

    def _all(self, query: sa.Select[Any]) -> list[Segmentation]:
        return [_segmentation_of(dict(row)) for row in self._connection.execute(query).mappings()]


def _segmentation_of(row: dict[str, Any]) -> Segmentation:
    words: dict[str, Any] = {"priority": Priority(row["priority"]), "state": SegmentationState(row["state"])}
    return Segmentation(**{**row, **words})
