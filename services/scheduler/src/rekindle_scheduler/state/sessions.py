"""Sessions of cases in SQL; their leases name them."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from rekindle_scheduler.domain.annotation import Session
from rekindle_scheduler.domain.ids import AnnotatorId, ProjectId, SessionId
from rekindle_scheduler.state.rows import Repository
from rekindle_scheduler.state.tables import sessions


class Sessions(Repository):
    """Sessions of cases. `get` raises NotFound."""

    def add(self, session: Session) -> None:
        values = {
            "session_id": session.session_id,
            "project_id": session.project_id,
            "annotator_id": session.annotator_id,
            "minutes": session.minutes,
            "predicted_minutes": session.predicted_minutes,
            "detached": session.detached,
            "create_time": session.create_time,
            "expire_time": session.expire_time,
            "end_time": session.end_time,
        }
        self._connection.execute(sa.insert(sessions).values(values))

    def get(self, project_id: ProjectId, session_id: SessionId) -> Session:
        statement = sa.select(sessions).where(sessions.c.project_id == project_id, sessions.c.session_id == session_id)
        return _session(self._one(statement, "session", session_id))

    def page(
        self,
        project_id: ProjectId,
        annotator_id: AnnotatorId,
        *,
        include_ended: bool,
        after: tuple[datetime, str],
        limit: int,
    ) -> list[tuple[tuple[datetime, str], Session]]:
        """Oldest first."""
        create_time, session_id = sessions.c.create_time, sessions.c.session_id
        statement = sa.select(sessions).where(
            sessions.c.project_id == project_id,
            sessions.c.annotator_id == annotator_id,
            sa.or_(create_time > after[0], sa.and_(create_time == after[0], session_id > after[1])),
        )
        if not include_ended:
            statement = statement.where(sessions.c.end_time.is_(None))
        rows = self._connection.execute(statement.order_by(create_time, session_id).limit(limit))
        return [((row.create_time, row.session_id), _session(row)) for row in rows]

    def end(self, session: Session) -> None:
        """It ends now."""
        statement = sa.update(sessions).where(sessions.c.session_id == session.session_id)
        self._connection.execute(statement.values(end_time=self._now))


def _session(row: sa.Row[Any]) -> Session:
    return Session(**row._mapping)  # pyright: ignore[reportPrivateUsage]
