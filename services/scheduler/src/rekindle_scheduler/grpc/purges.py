# ruff: noqa: N802 (the methods have the names of the API)
"""The servicer's methods on purges."""

from __future__ import annotations

from typing import Any

from rekindle.api.scheduler.v1 import purges_pb2
from rekindle.api.scheduler.v1 import scheduler_pb2 as pb
from rekindle.convert import from_proto, to_proto
from rekindle_servicekit.pages import Paging

from rekindle_scheduler.domain.ids import ProjectId
from rekindle_scheduler.domain.purges import PurgeId
from rekindle_scheduler.grpc.base import Handlers
from rekindle_scheduler.state import UnitOfWork
from rekindle_scheduler.usecases import purges


class PurgeHandlers(Handlers):
    """Erase a patient, and follow it."""

    async def PurgeGroup(self, request: pb.PurgeGroupRequest, _: Any) -> pb.PurgeGroupResponse:
        project_id, target = ProjectId(request.project_id), from_proto(request, purges.PurgeTarget)

        def work(uow: UnitOfWork) -> pb.PurgeGroupResponse:
            purge = purges.purge_group(uow, project_id, target, reason=request.reason)
            return pb.PurgeGroupResponse(purge=to_proto(purge, purges_pb2.Purge))

        return await self.mutate(request, pb.PurgeGroupResponse, work)

    async def GetPurge(self, request: pb.GetPurgeRequest, _: Any) -> pb.GetPurgeResponse:
        project_id, purge_id = ProjectId(request.project_id), PurgeId(request.purge_id)
        purge = await self.read(lambda uow: purges.get_purge(uow, project_id, purge_id))
        return pb.GetPurgeResponse(purge=to_proto(purge, purges_pb2.Purge))

    async def ListPurges(self, request: pb.ListPurgesRequest, _: Any) -> pb.ListPurgesResponse:
        project_id, paging = ProjectId(request.project_id), Paging(request, [0])
        before = paging.after[0] or None
        rows = await self.read(lambda uow: purges.list_purges(uow, project_id, before=before, limit=paging.limit))
        page = paging.page(rows, lambda row: [row[0]])
        listed = [to_proto(purge, purges_pb2.Purge) for _, purge in page.items]
        return pb.ListPurgesResponse(purges=listed, next_page_token=page.next_token)
