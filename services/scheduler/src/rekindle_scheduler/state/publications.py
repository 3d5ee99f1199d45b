"""Owed results in SQL: one row for each case that ever had a label."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from rekindle_scheduler.domain.ids import CaseId, ProjectId, SubmissionId, VolumeId
from rekindle_scheduler.domain.publications import Publication, PublicationOrigin, Published
from rekindle_scheduler.state.rows import Repository
from rekindle_scheduler.state.tables import publications


class Publications(Repository):
    """What has to be delivered of cases whose label has changed; written in the transaction that changes it."""

    def owe(self, project_id: ProjectId, case_id: CaseId) -> None:
        """The label that counts, or what is said of it, may be another one now."""
        # Whoever changes a case's label holds its lock, so nobody else inserts the row meanwhile.
        known = sa.update(publications).where(publications.c.case_id == case_id)
        change = {"owed": True, "version": publications.c.version + 1, "owed_at": self._now}
        if self._connection.execute(known.values(change)).rowcount == 0:
            row = {"case_id": case_id, "project_id": project_id, "owed": True, "version": 1, "owed_at": self._now}
            self._connection.execute(sa.insert(publications).values(row))

    def owed(self, *, limit: int) -> list[Publication]:
        """Of all projects, those first that have been owed, or were postponed, the longest ago."""
        statement = sa.select(publications).where(publications.c.owed.is_(True)).order_by(publications.c.owed_at)
        return [_publication(row) for row in self._connection.execute(statement.limit(limit))]

    def postpone(self, publication: Publication) -> None:
        """It could not be delivered: the others come first."""
        of_case = publications.c.case_id == publication.case_id
        self._connection.execute(sa.update(publications).where(of_case).values(owed_at=self._now))

    def settle(self, publication: Publication, published: Published | None) -> None:
        """It is delivered; still owed where the case has changed again since `publication` was read."""
        values: dict[str, Any] = {"owed": sa.case((publications.c.version == publication.version, False), else_=True)}
        if published is not None:
            values |= {
                "submission_id": published.submission_id,
                "mask_volume_id": published.mask_volume_id,
                "origin": published.origin,
                "retracted": published.retracted,
            }
        of_case = publications.c.case_id == publication.case_id
        self._connection.execute(sa.update(publications).where(of_case).values(values))


def _publication(row: sa.Row[Any]) -> Publication:
    published = None
    if row.submission_id is not None:
        published = Published(
            submission_id=SubmissionId(row.submission_id),
            mask_volume_id=VolumeId(row.mask_volume_id),
            origin=PublicationOrigin(row.origin),
            retracted=row.retracted,
        )
    return Publication(
        project_id=ProjectId(row.project_id), case_id=CaseId(row.case_id), version=row.version, published=published
    )
