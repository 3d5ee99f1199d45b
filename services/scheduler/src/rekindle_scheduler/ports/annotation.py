"""The scheduler's state: drafts and sessions."""

from __future__ import annotations

from datetime import datetime
from typing import Protocol

from rekindle_scheduler.domain.annotation import Draft, Session
from rekindle_scheduler.domain.ids import AnnotatorId, CaseId, DraftId, LeaseId, ProjectId, SessionId


class Drafts(Protocol):
    """Unfinished labels. `get` raises NotFound."""

    def save(self, draft: Draft) -> None:
        """Add it, or put it in place of the one with its id."""
        ...

    def get(self, project_id: ProjectId, draft_id: DraftId) -> Draft: ...

    def of_lease(self, lease_id: LeaseId) -> Draft | None:
        """The lease's own; late ones are not."""
        ...

    def newest(self, project_id: ProjectId, case_id: CaseId, annotator_id: AnnotatorId) -> Draft | None:
        """The one saved last; late ones only where there is no other."""
        ...

    def page(
        self, project_id: ProjectId, annotator_id: AnnotatorId, *, after: tuple[datetime, str], limit: int
    ) -> list[tuple[tuple[datetime, str], Draft]]:
        """In the order in which they were begun."""
        ...

    def remove(self, draft_id: DraftId) -> None: ...


class Sessions(Protocol):
    """Sessions of cases. `get` raises NotFound."""

    def add(self, session: Session) -> None: ...

    def get(self, project_id: ProjectId, session_id: SessionId) -> Session: ...

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
        ...

    def end(self, session: Session) -> None:
        """It ends now."""
        ...
