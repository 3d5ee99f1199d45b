"""The feed of results and the quality limits in SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa

from rekindle_inference.adapters import rows
from rekindle_inference.adapters.tables import quality_limits, result_cursors, results, volumes
from rekindle_inference.domain.abstention import Abstention, AbstentionReason, QualityLimit
from rekindle_inference.domain.records import ModelVersionId, OrganQuality, ProjectId, SourceReference, VolumeId
from rekindle_inference.domain.results import Result, ResultId, ResultOrigin


class SqlResults:
    """The part of a transaction that deals with results."""

    def __init__(self, connection: sa.Connection) -> None:
        self._connection = connection

    def get(self, project_id: ProjectId, result_id: ResultId) -> Result | None:
        return self._first(project_id, results.c.result_id == result_id)

    def of_image(self, project_id: ProjectId, image: VolumeId, *, before: int | None, limit: int) -> list[Result]:
        older = sa.true() if before is None else results.c.cursor < before
        which = sa.and_(results.c.image_volume_id == image, older)
        return self._some(project_id, which, results.c.cursor.desc(), limit)

    def after(self, project_id: ProjectId, cursor: int, *, limit: int) -> list[Result]:
        return self._some(project_id, results.c.cursor > cursor, results.c.cursor, limit)

    def head(self, project_id: ProjectId, image: VolumeId) -> Result | None:
        return self._first(project_id, sa.and_(results.c.image_volume_id == image, results.c.leads))

    def newest_of_submission(self, project_id: ProjectId, submission_id: str) -> Result | None:
        return self._first(project_id, results.c.submission_id == submission_id)

    def model_of_mask(self, project_id: ProjectId, mask: VolumeId) -> ModelVersionId | None:
        """The version whose result a mask is."""
        by_model = sa.and_(results.c.mask_volume_id == mask, results.c.origin == ResultOrigin.MODEL)
        query = sa.select(results.c.model_version_id).where(results.c.project_id == project_id, by_model).limit(1)
        return self._connection.execute(query).scalar()

    def lock_feed(self, project_id: ProjectId) -> None:
        lock = sa.update(result_cursors).where(result_cursors.c.project_id == project_id)
        if self._connection.execute(lock.values(last=result_cursors.c.last)).rowcount == 0:
            # Of two first ones at a time, the second fails on the key and is tried again.
            self._connection.execute(sa.insert(result_cursors).values(project_id=project_id, last=0))

    def next_cursor(self, project_id: ProjectId) -> int:
        of_project = result_cursors.c.project_id == project_id
        self._connection.execute(sa.update(result_cursors).where(of_project).values(last=result_cursors.c.last + 1))
        return int(self._connection.execute(sa.select(result_cursors.c.last).where(of_project)).scalar_one())

    def add(self, result: Result) -> None:
        row = asdict(result)
        del row["source"]  # the image's, and kept with it alone
        self._connection.execute(sa.insert(results).values(row))

    def limits(self, project_id: ProjectId) -> list[QualityLimit]:
        columns = [column for column in quality_limits.c if column.name != "project_id"]
        query = sa.select(*columns).where(quality_limits.c.project_id == project_id)
        found = self._connection.execute(query.order_by(quality_limits.c.organ_id)).mappings()
        return [QualityLimit(**row) for row in found]

    def set_limits(self, project_id: ProjectId, limits: Iterable[QualityLimit]) -> None:
        self._connection.execute(sa.delete(quality_limits).where(quality_limits.c.project_id == project_id))
        wanted = [{"project_id": project_id, **asdict(limit)} for limit in limits]
        if wanted:
            self._connection.execute(sa.insert(quality_limits), wanted)

    def _first(self, project_id: ProjectId, which: sa.ColumnElement[bool]) -> Result | None:
        found = self._some(project_id, which, results.c.cursor.desc(), 1)
        return found[0] if found else None

    def _some(
        self, project_id: ProjectId, which: sa.ColumnElement[bool], order: sa.ColumnElement[Any], limit: int
    ) -> list[Result]:
        image = sa.and_(volumes.c.volume_id == results.c.image_volume_id, volumes.c.project_id == results.c.project_id)
        query = (
            sa.select(results, volumes.c.source)
            # The image may have been erased.
            .select_from(results.outerjoin(volumes, image))
            .where(results.c.project_id == project_id, which)
            .order_by(order)
            .limit(limit)
        )
        return [_result_of(dict(row)) for row in self._connection.execute(query).mappings()]


def _result_of(row: dict[str, Any]) -> Result:
    source = row["source"]
    converted: dict[str, Any] = {
        "origin": ResultOrigin(row["origin"]),
        "quality": tuple(OrganQuality(**item) for item in row["quality"]),
        "abstentions": tuple(_abstention_of(item) for item in row["abstentions"]),
        "source": SourceReference() if source is None else rows.source_of(source),
    }
    return Result(**{**row, **converted})


def _abstention_of(item: dict[str, Any]) -> Abstention:
    fields: dict[str, Any] = {**item, "reason": AbstentionReason(item["reason"])}
    return Abstention(**fields)
