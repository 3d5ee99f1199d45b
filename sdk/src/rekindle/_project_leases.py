"""A project's leases: of the next case, of a case by its id, of sessions; drafts; resuming a lease."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from rekindle._call import new_request_id
from rekindle._deprecated import warn_of_old_name
from rekindle._project_base import ProjectBase
from rekindle.api.scheduler.v1 import annotation_pb2 as annotation
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.api.scheduler.v1 import scheduler_pb2 as scheduler
from rekindle.convert import duration
from rekindle.drafts import Draft
from rekindle.errors import DeadlineExceeded, IllegalTransition, InvalidInput
from rekindle.leases import Lease
from rekindle.records import NoCase
from rekindle.sessions import Session
from rekindle.tickets import read_ticket


class ProjectLeases(ProjectBase):
    """The part of a project's handle that deals with leases."""

    def try_lease_next(self, minutes: float | None = None) -> Lease | NoCase:
        """Leases the next case of the round, or answers why no case is free now."""
        request = scheduler.LeaseNextCaseRequest(request_id=new_request_id(), project_id=self.id)
        if minutes is not None:
            request.duration.CopyFrom(duration(minutes * 60))
        answer = self._services.scheduler.LeaseNextCase(request)
        if answer.WhichOneof("outcome") == "lease":
            return Lease(self._services, answer.lease, self.organs)
        return NoCase.from_proto(answer.none)

    def lease_next(
        self,
        minutes: float | None = None,
        *,
        wait_s: float = 0.0,
        waiting: Callable[[NoCase], None] | None = None,
    ) -> Lease | None:
        """Leases the next case, waiting up to `wait_s` while a model is prepared. None when every case is labelled.

        Raises IllegalTransition when the project does not run, DeadlineExceeded when no case became free.
        """
        deadline = time.monotonic() + wait_s
        while True:
            outcome = self.try_lease_next(minutes)
            if isinstance(outcome, Lease):
                return outcome
            if outcome.reason == "complete":
                return None
            if outcome.reason == "not-running":
                raise IllegalTransition(outcome.message, reason="NOT_RUNNING")
            if waiting:
                waiting(outcome)
            pause_s = min(max(outcome.retry_after_s, 0.2), deadline - time.monotonic())
            if pause_s <= 0:
                waited = f" became free within {wait_s:.0f} s" if wait_s else " is free now"
                raise DeadlineExceeded(f"no case{waited}: {outcome.message}", reason="NO_CASE_NOW")
            time.sleep(pause_s)

    def lease(
        self, case_id: str, minutes: float | None = None, *, round: int = 0, revise: bool = False, tool: str = ""
    ) -> Lease:
        """Leases one case by its id, in or out of the round's selection.

        `revise` leases a labelled case, to correct its label: that counts until the correction does.
        """
        request = scheduler.LeaseCaseRequest(
            request_id=new_request_id(), project_id=self.id, case_id=case_id, round=round, revise=revise, tool=tool
        )
        if minutes is not None:
            request.duration.CopyFrom(duration(minutes * 60))
        answer = self._services.scheduler.LeaseCase(request)
        return Lease(self._services, answer.lease, self.organs)

    def my_leases(self) -> list[Lease]:
        """The caller's live leases."""
        answer = self._get(self._services.scheduler.ListMyLeases, scheduler.ListMyLeasesRequest)
        return [self._lease(lease) for lease in answer.leases]

    def resume(self, lease: str, *, tool: str = "", exclusive: bool = True) -> Lease:
        """Resumes a lease of yours in this process; `lease` is the text of `Lease.ticket`, or a lease's id.

        The tool that held the lease can no longer write. The time so far is kept, and `Lease.draft` brings the saved
        mask. With a ticket and without `exclusive` the service is told nothing: other holders of the ticket may write
        as well, and a lease that has run out is taken as it is, because its mask can still be submitted.
        Raises NotFound, LeaseLost, and InvalidInput for a ticket of another project.
        """
        if exclusive and not lease.lstrip().startswith("{"):
            resumed = self._lease(records.Lease(lease_id=lease, project_id=self.id))
            resumed.resume(tool)
            return resumed
        ticket = read_ticket(lease)
        if ticket.lease.project_id != self.id:
            raise InvalidInput("this lease belongs to another project: resume it there")
        resumed = self._lease(ticket.lease) if exclusive else self._live(ticket.lease)
        resumed.restore_time(ticket)
        if exclusive:
            resumed.resume(tool)
        return resumed

    def session(
        self,
        minutes: float,
        *,
        detached: bool = False,
        max_cases: int = 0,
        lease_minutes: float | None = None,
        tool: str = "",
    ) -> Session | NoCase:
        """Leases as many cases ahead as fit the minutes, in the round's order, or answers why no case is free now.

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
        request = annotation.GetSessionRequest(project_id=self.id, session_id=session_id)
        answer = self._services.scheduler.GetSession(request)
        return Session(self._services, answer.session, self.organs)

    def sessions(self, *, include_ended: bool = False) -> Iterator[Session]:
        """Your sessions, oldest first."""
        pages = self._pages(
            self._services.scheduler.ListMySessions, annotation.ListMySessionsRequest, include_ended=include_ended
        )
        return (Session(self._services, item, self.organs) for page in pages for item in page.sessions)

    def drafts(self) -> Iterator[Draft]:
        """Your drafts, in the order in which they were begun."""
        pages = self._pages(self._services.scheduler.ListDrafts, annotation.ListDraftsRequest)
        return (Draft.from_proto(item, self._services) for page in pages for item in page.drafts)

    def draft(self, draft_id: str) -> Draft:
        """The draft with this id. Raises NotFound."""
        request = annotation.GetDraftRequest(project_id=self.id, draft_id=draft_id)
        answer = self._services.scheduler.GetDraft(request)
        return Draft.from_proto(answer.draft, self._services)

    def discard_draft(self, draft_id: str) -> None:
        """Discards a draft of yours. Its time stays booked."""
        request = annotation.DiscardDraftRequest(request_id=new_request_id(), project_id=self.id, draft_id=draft_id)
        self._services.scheduler.DiscardDraft(request)

    def take_up(self, lease_id: str, *, tool: str = "") -> Lease:
        """Deprecated name of `resume`, with a lease's id."""
        warn_of_old_name("Project.take_up", "Project.resume")
        return self.resume(lease_id, tool=tool)

    def resume_lease(self, token: str) -> Lease:
        """Deprecated name of `resume`, with a ticket and without `exclusive`."""
        warn_of_old_name("Project.resume_lease", "Project.resume(ticket, exclusive=False)")
        return self.resume(token, exclusive=False)

    def _live(self, written: records.Lease) -> Lease:
        """The lease of a ticket as the service has it; as it was written where it is not live any more.

        A lease that another tool has resumed since has another fencing token: what comes from here is then kept as a
        draft, and does not count.
        """
        key = written.lease_id, written.fencing_token
        live = (lease for lease in self.my_leases() if (lease.id, lease.fencing_token) == key)
        return next(live, None) or self._lease(written)

    def _lease(self, message: records.Lease) -> Lease:
        return Lease(self._services, message, self.organs, fresh=False)
