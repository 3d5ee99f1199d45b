"""Annotators and events in SQL."""

from __future__ import annotations

from uuid import uuid4

import sqlalchemy as sa
from rekindle_servicekit.principal import Principal

from rekindle_scheduler.domain.events import Event, RoundEvent
from rekindle_scheduler.domain.ids import AnnotatorId, ProjectId
from rekindle_scheduler.state.rows import Repository
from rekindle_scheduler.state.tables import annotators, events


class Annotators(Repository):
    """Callers as annotators: one id per issuer and subject."""

    def find(self, principal: Principal) -> AnnotatorId | None:
        statement = sa.select(annotators.c.annotator_id).where(
            annotators.c.issuer == principal.issuer, annotators.c.subject == principal.subject
        )
        return self._connection.execute(statement).scalar_one_or_none()

    def find_or_add(self, principal: Principal) -> AnnotatorId:
        annotator_id = self.find(principal)
        if annotator_id is not None:
            return annotator_id
        values = {
            "annotator_id": AnnotatorId(str(uuid4())),
            "issuer": principal.issuer,
            "subject": principal.subject,
            "display_name": principal.display_name,
        }
        self._connection.execute(sa.insert(annotators).values(values))
        return AnnotatorId(values["annotator_id"])


class Events(Repository):
    """A project's history, under growing cursors."""

    def add(self, event: Event) -> None:
        values = {
            "project_id": event.project_id,
            "cursor": self._take_number(event.project_id, "last_cursor"),
            "time": self._now,
            "kind": event.kind,
            "message": event.message,
            "round": event.round,
            "details": event.delivered_details(),
        }
        self._connection.execute(sa.insert(events).values(values))
        self._occurrences.append(event)

    def after(self, project_id: ProjectId, cursor: int, *, limit: int) -> list[RoundEvent]:
        statement = (
            sa.select(events)
            .where(events.c.project_id == project_id, events.c.cursor > cursor)
            .order_by(events.c.cursor)
            .limit(limit)
        )
        return [RoundEvent(**row._mapping) for row in self._connection.execute(statement)]  # pyright: ignore[reportPrivateUsage]
