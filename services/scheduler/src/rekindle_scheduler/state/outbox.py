"""The outbox in SQL: one row for each case that ever had a label."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from rekindle_scheduler.domain.ids import CaseId, ProjectId, SubmissionId, VolumeId
from rekindle_scheduler.domain.outbox import OutboxEntry, PublishedResult, ResultOrigin
from rekindle_scheduler.state.rows import Repository
from rekindle_scheduler.state.tables import publications


class Outbox(Repository):
    """Cases whose label has to be delivered as a result; written in the transaction that changes the label."""

    def enqueue(self, project_id: ProjectId, case_id: CaseId) -> None:
        """Have the case looked at: the label that counts, or what is said of it, may have changed."""
        # A transaction that changes a case's label holds its lock, so no other one inserts the row meanwhile.
        of_case = sa.update(publications).where(publications.c.case_id == case_id)
        change = {"owed": True, "version": publications.c.version + 1, "owed_at": self._now}
        if self._connection.execute(of_case.values(change)).rowcount == 0:
            row = {"case_id": case_id, "project_id": project_id, "owed": True, "version": 1, "owed_at": self._now}
            self._connection.execute(sa.insert(publications).values(row))

    def pending(self, *, limit: int) -> list[OutboxEntry]:
        """Entries of all projects, those first that were enqueued or deferred the longest ago."""
        statement = sa.select(publications).where(publications.c.owed.is_(True)).order_by(publications.c.owed_at)
        return [_entry(row) for row in self._connection.execute(statement.limit(limit))]

    def defer(self, entry: OutboxEntry) -> None:
        """Put an entry that could not be delivered behind the others."""
        self._update(entry, {"owed_at": self._now})

    def mark_delivered(self, entry: OutboxEntry, result: PublishedResult | None) -> None:
        """Note the delivery; the entry stays pending where the case has changed again since `entry` was read."""
        values: dict[str, Any] = {"owed": sa.case((publications.c.version == entry.version, False), else_=True)}
        if result is not None:
            values |= {
                "submission_id": result.submission_id,
                "mask_volume_id": result.mask_volume_id,
                "origin": result.origin,
                "retracted": result.retracted,
            }
        self._update(entry, values)

    def _update(self, entry: OutboxEntry, values: dict[str, Any]) -> None:
        of_case = publications.c.case_id == entry.case_id
        self._connection.execute(sa.update(publications).where(of_case).values(values))


def _entry(row: sa.Row[Any]) -> OutboxEntry:
    published = None
    if row.submission_id is not None:
        published = PublishedResult(
            submission_id=SubmissionId(row.submission_id),
            mask_volume_id=VolumeId(row.mask_volume_id),
            origin=ResultOrigin(row.origin),
            retracted=row.retracted,
        )
    return OutboxEntry(
        project_id=ProjectId(row.project_id), case_id=CaseId(row.case_id), version=row.version, published=published
    )
