"""Drafts in SQL: one row each, replaced with every save."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from rekindle_scheduler.domain.annotation import Draft
from rekindle_scheduler.domain.ids import AnnotatorId, CaseId, DraftId, LeaseId, ProjectId
from rekindle_scheduler.state.codec import decode, encode
from rekindle_scheduler.state.rows import Repository
from rekindle_scheduler.state.tables import drafts


class Drafts(Repository):
    """Unfinished labels. `get` raises NotFound."""

    def save(self, draft: Draft) -> None:
        """Add it, or put it in place of the one with its id."""
        values = {"save_time": draft.save_time, "record": encode(draft)}
        statement = sa.update(drafts).where(drafts.c.draft_id == draft.draft_id)
        if self._connection.execute(statement.values(values)).rowcount:
            return
        values |= {
            "draft_id": draft.draft_id,
            "project_id": draft.project_id,
            "case_id": draft.case_id,
            "lease_id": draft.lease_id,
            "annotator_id": draft.annotator_id,
            "begin_time": draft.save_time,
            "late": draft.late,
        }
        self._connection.execute(sa.insert(drafts).values(values))

    def get(self, project_id: ProjectId, draft_id: DraftId) -> Draft:
        statement = sa.select(drafts).where(drafts.c.project_id == project_id, drafts.c.draft_id == draft_id)
        return _draft(self._one(statement, "draft", draft_id))

    def of_lease(self, lease_id: LeaseId) -> Draft | None:
        """The lease's own; late ones are not."""
        statement = sa.select(drafts).where(drafts.c.lease_id == lease_id, sa.not_(drafts.c.late))
        row = self._connection.execute(statement).one_or_none()
        return None if row is None else _draft(row)

    def newest(self, project_id: ProjectId, case_id: CaseId, annotator_id: AnnotatorId) -> Draft | None:
        """The one saved last; late ones only where there is no other."""
        statement = sa.select(drafts).where(
            drafts.c.project_id == project_id, drafts.c.case_id == case_id, drafts.c.annotator_id == annotator_id
        )
        order = drafts.c.late, drafts.c.save_time.desc(), drafts.c.draft_id
        row = self._connection.execute(statement.order_by(*order).limit(1)).one_or_none()
        return None if row is None else _draft(row)

    def page(
        self, project_id: ProjectId, annotator_id: AnnotatorId, *, after: tuple[datetime, str], limit: int
    ) -> list[tuple[tuple[datetime, str], Draft]]:
        """In the order in which they were begun."""
        begin_time, draft_id = drafts.c.begin_time, drafts.c.draft_id
        statement = sa.select(drafts).where(
            drafts.c.project_id == project_id,
            drafts.c.annotator_id == annotator_id,
            sa.or_(begin_time > after[0], sa.and_(begin_time == after[0], draft_id > after[1])),
        )
        rows = self._connection.execute(statement.order_by(begin_time, draft_id).limit(limit))
        return [((row.begin_time, row.draft_id), _draft(row)) for row in rows]

    def remove(self, draft_id: DraftId) -> None:
        self._connection.execute(sa.delete(drafts).where(drafts.c.draft_id == draft_id))


def _draft(row: sa.Row[Any]) -> Draft:
    return decode(Draft, row.record)
