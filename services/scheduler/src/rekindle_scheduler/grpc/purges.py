# ruff: noqa: N802 (the methods have the names of the API)
"""The servicer's methods on erasures."""

from __future__ import annotations

from typing import Any

from rekindle.api.scheduler.v1 import purges_pb2
from rekindle.api.scheduler.v1 import scheduler_pb2 as pb
from rekindle_servicekit.moments import timestamp

from rekindle_scheduler import wire
from rekindle_scheduler.domain.ids import ProjectId
from rekindle_scheduler.domain.purges import Purge, PurgeId
from rekindle_scheduler.grpc.base import Handlers
from rekindle_scheduler.grpc.pages import next_token, page_size, place_of
from rekindle_scheduler.usecases import purges


class PurgeHandlers(Handlers):
    """Erase a patient, and follow it."""

    async def PurgeGroup(self, request: pb.PurgeGroupRequest, _: Any) -> pb.PurgeGroupResponse:
        project_id = ProjectId(request.project_id)
        target = purges.PurgeTarget(group_key=request.group_key, case_id=request.case_id)
        return await self._mutate(
            request,
            pb.PurgeGroupResponse,
            lambda uow, principal: pb.PurgeGroupResponse(
                purge=purge_to_api(purges.purge_group(uow, project_id, target, reason=request.reason))
            ),
        )

    async def GetPurge(self, request: pb.GetPurgeRequest, _: Any) -> pb.GetPurgeResponse:
        project_id, purge_id = ProjectId(request.project_id), PurgeId(request.purge_id)
        found = await self._read(lambda uow, principal: purges.get_purge(uow, project_id, purge_id))
        return pb.GetPurgeResponse(purge=purge_to_api(found))

    async def ListPurges(self, request: pb.ListPurgesRequest, _: Any) -> pb.ListPurgesResponse:
        size, (before,) = page_size(request.page_size), place_of(request, [0])
        project_id = ProjectId(request.project_id)
        found = await self._read(
            lambda uow, principal: purges.list_purges(uow, project_id, before=before or None, limit=size + 1)
        )
        token = next_token(request, [found[size - 1][0]]) if len(found) > size else ""
        return pb.ListPurgesResponse(purges=[purge_to_api(each) for _, each in found[:size]], next_page_token=token)


def purge_to_api(purge: Purge) -> purges_pb2.Purge:
    return purges_pb2.Purge(
        purge_id=purge.purge_id,
        project_id=purge.project_id,
        state=wire.number_of(purges_pb2.PurgeState, purge.state, "PURGE_STATE_"),
        reason=purge.reason,
        case_ids=purge.case_ids,
        submissions=purge.submissions,
        volumes=purge.volumes,
        objects=purge.objects,
        marked_model_version_ids=purge.marked_model_version_ids,
        waiting_for=purge.waiting_for,
        request_time=timestamp(purge.request_time),
        end_time=timestamp(purge.end_time),
    )
