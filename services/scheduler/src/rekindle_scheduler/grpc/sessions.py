# ruff: noqa: N802 (the methods have the names of the API)
"""The servicer's methods on sessions."""

from __future__ import annotations

from typing import Any

from rekindle.api.scheduler.v1 import annotation_pb2 as pb
from rekindle.api.scheduler.v1 import scheduler_pb2
from rekindle.convert import from_proto, to_proto
from rekindle_servicekit.context import principal
from rekindle_servicekit.pages import Paging

from rekindle_scheduler.domain.ids import LeaseId, ProjectId, SessionId
from rekindle_scheduler.grpc.base import Handlers
from rekindle_scheduler.grpc.convert import session_to_proto
from rekindle_scheduler.grpc.drafts import BEFORE_ALL, moment_and_id
from rekindle_scheduler.state import UnitOfWork
from rekindle_scheduler.usecases import sessions
from rekindle_scheduler.usecases.leases import NoCase


class SessionHandlers(Handlers):
    """Sessions."""

    async def StartSession(
        self, request: scheduler_pb2.StartSessionRequest, _: Any
    ) -> scheduler_pb2.StartSessionResponse:
        project_id, terms = ProjectId(request.project_id), from_proto(request, sessions.SessionTerms)

        def work(uow: UnitOfWork) -> scheduler_pb2.StartSessionResponse:
            outcome = sessions.start_session(uow, principal(), project_id, terms)
            if isinstance(outcome, NoCase):
                return scheduler_pb2.StartSessionResponse(none=to_proto(outcome, scheduler_pb2.NoCase))
            return scheduler_pb2.StartSessionResponse(session=session_to_proto(outcome))

        return await self.mutate(
            request, scheduler_pb2.StartSessionResponse, work, changed=lambda done: done.HasField("session")
        )

    async def GetSession(self, request: pb.GetSessionRequest, _: Any) -> pb.GetSessionResponse:
        project_id, session_id = ProjectId(request.project_id), SessionId(request.session_id)
        details = await self.read(lambda uow: sessions.get_session(uow, principal(), project_id, session_id))
        return pb.GetSessionResponse(session=session_to_proto(details))

    async def ListMySessions(self, request: pb.ListMySessionsRequest, _: Any) -> pb.ListMySessionsResponse:
        project_id, paging = ProjectId(request.project_id), Paging(request, BEFORE_ALL)
        ended, after = request.include_ended, moment_and_id(paging)
        rows = await self.read(
            lambda uow: sessions.my_sessions(
                uow, principal(), project_id, include_ended=ended, after=after, limit=paging.limit
            )
        )
        page = paging.page(rows, lambda row: [row[0][0].isoformat(), row[0][1]])
        listed = [session_to_proto(details) for _, details in page.items]
        return pb.ListMySessionsResponse(sessions=listed, next_page_token=page.next_token)

    async def EndSession(self, request: pb.EndSessionRequest, _: Any) -> pb.EndSessionResponse:
        project_id, session_id = ProjectId(request.project_id), SessionId(request.session_id)
        held = {LeaseId(lease.lease_id): lease.fencing_token for lease in request.held}

        def work(uow: UnitOfWork) -> pb.EndSessionResponse:
            details = sessions.end_session(uow, principal(), project_id, session_id, held)
            return pb.EndSessionResponse(session=session_to_proto(details))

        return await self.mutate(request, pb.EndSessionResponse, work)
