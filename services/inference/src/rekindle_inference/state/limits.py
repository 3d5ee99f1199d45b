"""Quality limits of projects in SQL."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict

import sqlalchemy as sa

from rekindle_inference.domain.abstention import QualityLimit
from rekindle_inference.domain.records import ProjectId
from rekindle_inference.state.rows import Repository, record_of
from rekindle_inference.state.tables import quality_limits


class Limits(Repository):
    """Quality below which organs are left out of a project's results."""

    def of_project(self, project_id: ProjectId) -> list[QualityLimit]:
        """By organ."""
        query = sa.select(quality_limits).where(quality_limits.c.project_id == project_id)
        return [record_of(QualityLimit, row) for row in self._mappings(query.order_by(quality_limits.c.organ_id))]

    def replace(self, project_id: ProjectId, limits: Iterable[QualityLimit]) -> None:
        """These, and no others."""
        self._connection.execute(sa.delete(quality_limits).where(quality_limits.c.project_id == project_id))
        rows = [{"project_id": project_id, **asdict(limit)} for limit in limits]
        if rows:
            self._connection.execute(sa.insert(quality_limits), rows)
