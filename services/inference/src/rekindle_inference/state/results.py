"""The feed of results in SQL."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa
from rekindle.vocabulary import SourceReference
from rekindle_servicekit.json_codec import decode

from rekindle_inference.domain.records import ProjectId, VolumeId
from rekindle_inference.domain.results import Result, ResultId
from rekindle_inference.state.rows import Repository, record_of, row_of
from rekindle_inference.state.tables import result_cursors, results, volumes


class Results(Repository):
    """The feed of results of each project."""

    def get(self, project_id: ProjectId, result_id: ResultId) -> Result | None:
        return self._first(project_id, results.c.result_id == result_id)

    def of_image(self, project_id: ProjectId, image: VolumeId, *, before: int | None, limit: int) -> list[Result]:
        """Newest first, with cursors below `before`."""
        older = sa.true() if before is None else results.c.cursor < before
        condition = sa.and_(results.c.image_volume_id == image, older)
        return self._select(project_id, condition, results.c.cursor.desc(), limit)

    def after(self, project_id: ProjectId, cursor: int, *, limit: int) -> list[Result]:
        """In the order of cursors."""
        return self._select(project_id, results.c.cursor > cursor, results.c.cursor, limit)

    def head(self, project_id: ProjectId, image: VolumeId) -> Result | None:
        """The newest word on an image."""
        return self._first(project_id, sa.and_(results.c.image_volume_id == image, results.c.leads))

    def newest_of_submission(self, project_id: ProjectId, submission_id: str) -> Result | None:
        return self._first(project_id, results.c.submission_id == submission_id)

    def lock_feed(self, project_id: ProjectId) -> None:
        """Let nobody else add to the project's feed before this transaction has ended, so that none comes late."""
        lock = sa.update(result_cursors).where(result_cursors.c.project_id == project_id)
        if self._connection.execute(lock.values(last=result_cursors.c.last)).rowcount == 0:
            # Of two first ones at a time, the second fails on the key and is tried again.
            self._insert(result_cursors, {"project_id": project_id, "last": 0})

    def next_cursor(self, project_id: ProjectId) -> int:
        """Of a feed that is locked."""
        feed = result_cursors.c.project_id == project_id
        self._connection.execute(sa.update(result_cursors).where(feed).values(last=result_cursors.c.last + 1))
        return int(self._connection.execute(sa.select(result_cursors.c.last).where(feed)).scalar_one())

    def add(self, result: Result) -> None:
        """Without the image's source, which is kept with the image alone."""
        self._insert(results, row_of(results, result))

    def _first(self, project_id: ProjectId, condition: sa.ColumnElement[bool]) -> Result | None:
        rows = self._select(project_id, condition, results.c.cursor.desc(), 1)
        return rows[0] if rows else None

    def _select(
        self, project_id: ProjectId, condition: sa.ColumnElement[bool], order: sa.ColumnElement[Any], limit: int
    ) -> list[Result]:
        image = sa.and_(volumes.c.volume_id == results.c.image_volume_id, volumes.c.project_id == results.c.project_id)
        query = (
            sa.select(results, volumes.c.source)
            # The image may have been erased.
            .select_from(results.outerjoin(volumes, image))
            .where(results.c.project_id == project_id, condition)
            .order_by(order)
            .limit(limit)
        )
        return [_result_of(row) for row in self._mappings(query)]


def _result_of(row: Mapping[str, Any]) -> Result:
    source = row["source"]
    return record_of(Result, row, source=SourceReference() if source is None else decode(SourceReference, source))
