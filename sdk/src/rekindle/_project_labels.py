"""A project's work in progress: sessions, drafts, and what becomes of labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from rekindle._call import new_request_id
from rekindle._project_base import ProjectBase
from rekindle.api.scheduler.v1 import annotation_pb2 as api
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.api.scheduler.v1 import scheduler_pb2 as scheduler
from rekindle.config import duration, enum_value
from rekindle.drafts import Draft
from rekindle.leases import Lease
from rekindle.records import NoCase, Submission
from rekindle.sessions import Session

VerdictName = Literal["accept", "reject"]


class ProjectLabels(ProjectBase):
    """The part of a project's handle that deals with labels on their way."""

    def session(
        self,
        minutes: float,
        *,
        detached: bool = False,
        max_cases: int = 0,
        lease_minutes: float | None = None,
        tool: str = "",
    ) -> Session | NoCase:
        """Leases as many cases ahead as fit the minutes, in the round's order, or says why there is none now.

        One case at least, however long it is expected to take. `detached` is for work without the service:
        the leases last as long as the policy says for that, a week unless it was changed.
        """
        request = scheduler.StartSessionRequest(
            request_id=new_request_id(),
            project_id=self.id,
            minutes=minutes,
            detached=detached,
            max_cases=max_cases,
            tool=tool,
        )
        if lease_minutes is not None:
            request.duration.CopyFrom(duration(lease_minutes * 60))
        answer = self._services.scheduler.StartSession(request)
        if answer.WhichOneof("outcome") == "session":
            return Session(self._services, answer.session, self.organs)
        return NoCase.from_proto(answer.none)

    def open_session(self, session_id: str) -> Session:
        """Your session with this id, as it is now."""
        request = api.GetSessionRequest(project_id=self.id, session_id=session_id)
        answer = self._services.scheduler.GetSession(request)
        return Session(self._services, answer.session, self.organs)

    def sessions(self, *, include_ended: bool = False) -> Iterator[Session]:
        """Your sessions, oldest first."""
        pages = self._pages(
            self._services.scheduler.ListMySessions, api.ListMySessionsRequest, include_ended=include_ended
        )
        return (Session(self._services, item, self.organs) for page in pages for item in page.sessions)

    def take_up(self, lease_id: str, *, tool: str = "") -> Lease:
        """Goes on with your own lease here: whatever held it before cannot write any more, its time goes on.

        `Lease.draft` then brings what was saved. Raises NotFound, LeaseLost.
        """
        lease = Lease(self._services, records.Lease(lease_id=lease_id, project_id=self.id), self.organs, fresh=False)
        lease.take_up(tool)
        return lease

    def drafts(self) -> Iterator[Draft]:
        """Your drafts, in the order in which they were begun."""
        pages = self._pages(self._services.scheduler.ListDrafts, api.ListDraftsRequest)
        return (Draft.from_proto(item, self._services) for page in pages for item in page.drafts)

    def draft(self, draft_id: str) -> Draft:
        """The draft with this id. Raises NotFound."""
        request = api.GetDraftRequest(project_id=self.id, draft_id=draft_id)
        answer = self._services.scheduler.GetDraft(request)
        return Draft.from_proto(answer.draft, self._services)

    def discard_draft(self, draft_id: str) -> None:
        """Throws a draft of yours away. Its time stays booked."""
        request = api.DiscardDraftRequest(request_id=new_request_id(), project_id=self.id, draft_id=draft_id)
        self._services.scheduler.DiscardDraft(request)

    def withdraw(self, submission_id: str, reason: str = "") -> Submission:
        """Takes a label back. Raises IllegalTransition (IN_SNAPSHOT) once it was trained on: correct it instead."""
        request = api.WithdrawSubmissionRequest(
            request_id=new_request_id(), project_id=self.id, submission_id=submission_id, reason=reason
        )
        answer = self._services.scheduler.WithdrawSubmission(request)
        return Submission.from_proto(answer.submission)

    def review(
        self, submission_id: str, verdict: VerdictName, *, comment: str = "", supersede: bool = False
    ) -> Submission:
        """Accepts or rejects a label. `supersede` accepts one in place of another that counts by now.

        Raises PermissionDenied unless you may review, and for your own label where the project forbids that.
        """
        request = api.ReviewSubmissionRequest(
            request_id=new_request_id(),
            project_id=self.id,
            submission_id=submission_id,
            verdict=enum_value(api.ReviewVerdict, "REVIEW_VERDICT", verdict),  # type: ignore[arg-type]
            comment=comment,
            supersede=supersede,
        )
        answer = self._services.scheduler.ReviewSubmission(request)
        return Submission.from_proto(answer.submission)
