# ruff: noqa: N802 (the methods have the names of the API)
"""The servicer's methods on leases."""

from __future__ import annotations

from typing import Any

from rekindle.api.common.v1 import common_pb2
from rekindle.api.scheduler.v1 import annotation_pb2, scheduler_pb2
from rekindle.api.scheduler.v1 import scheduler_pb2 as pb
from rekindle.convert import from_proto, to_proto
from rekindle.vocabulary import TimeSegment
from rekindle_servicekit.context import principal

from rekindle_scheduler.domain.ids import CaseId, LeaseId, ProjectId
from rekindle_scheduler.grpc.base import Handlers
from rekindle_scheduler.grpc.convert import lease_to_proto
from rekindle_scheduler.state import UnitOfWork
from rekindle_scheduler.usecases import drafts, leases


class LeaseHandlers(Handlers):
    """Leases."""

    async def LeaseNextCase(self, request: pb.LeaseNextCaseRequest, _: Any) -> pb.LeaseNextCaseResponse:
        project_id, terms = ProjectId(request.project_id), from_proto(request, leases.LeaseTerms)

        def work(uow: UnitOfWork) -> pb.LeaseNextCaseResponse:
            outcome = leases.lease_next_case(uow, principal(), project_id, terms.duration, terms.tool)
            if isinstance(outcome, leases.NoCase):
                return pb.LeaseNextCaseResponse(none=to_proto(outcome, scheduler_pb2.NoCase))
            return pb.LeaseNextCaseResponse(lease=lease_to_proto(outcome))

        return await self.mutate(request, pb.LeaseNextCaseResponse, work, changed=lambda done: done.HasField("lease"))

    async def LeaseCase(self, request: pb.LeaseCaseRequest, _: Any) -> pb.LeaseCaseResponse:
        terms = from_proto(request, leases.LeaseTerms)

        def work(uow: UnitOfWork) -> pb.LeaseCaseResponse:
            details = leases.lease_case(
                uow,
                principal(),
                ProjectId(request.project_id),
                CaseId(request.case_id),
                terms.duration,
                request.round,
                revise=request.revise,
                tool=terms.tool,
            )
            return pb.LeaseCaseResponse(lease=lease_to_proto(details))

        return await self.mutate(request, pb.LeaseCaseResponse, work)

    async def RenewLease(self, request: pb.RenewLeaseRequest, _: Any) -> pb.RenewLeaseResponse:
        project_id, lease_id = ProjectId(request.project_id), LeaseId(request.lease_id)
        duration = from_proto(request, leases.LeaseTerms).duration

        def work(uow: UnitOfWork) -> pb.RenewLeaseResponse:
            details = leases.renew_lease(uow, principal(), project_id, lease_id, request.fencing_token, duration)
            return pb.RenewLeaseResponse(lease=lease_to_proto(details))

        return await self.mutate(request, pb.RenewLeaseResponse, work)

    async def ReleaseLease(self, request: pb.ReleaseLeaseRequest, _: Any) -> pb.ReleaseLeaseResponse:
        segments = [
            from_proto(segment, TimeSegment, f"time_segments[{index}]")
            for index, segment in enumerate(request.time_segments)
        ]

        def work(uow: UnitOfWork) -> pb.ReleaseLeaseResponse:
            details = leases.release_lease(
                uow,
                principal(),
                ProjectId(request.project_id),
                LeaseId(request.lease_id),
                request.fencing_token,
                reason=request.reason,
                segments=segments,
            )
            return pb.ReleaseLeaseResponse(lease=lease_to_proto(details))

        return await self.mutate(request, pb.ReleaseLeaseResponse, work)

    async def TakeUpLease(
        self, request: annotation_pb2.TakeUpLeaseRequest, _: Any
    ) -> annotation_pb2.TakeUpLeaseResponse:
        project_id, lease_id = ProjectId(request.project_id), LeaseId(request.lease_id)

        def work(uow: UnitOfWork) -> annotation_pb2.TakeUpLeaseResponse:
            resumed = drafts.resume_lease(uow, principal(), project_id, lease_id, request.tool)
            return annotation_pb2.TakeUpLeaseResponse(
                lease=lease_to_proto(resumed.details),
                draft=None if resumed.draft is None else to_proto(resumed.draft, annotation_pb2.Draft),
                time_segments=[to_proto(segment, common_pb2.TimeSegment) for segment in resumed.time_segments],
            )

        return await self.mutate(request, annotation_pb2.TakeUpLeaseResponse, work)

    async def ListMyLeases(self, request: pb.ListMyLeasesRequest, _: Any) -> pb.ListMyLeasesResponse:
        listed = await self.read(lambda uow: leases.my_leases(uow, principal(), ProjectId(request.project_id)))
        return pb.ListMyLeasesResponse(leases=[lease_to_proto(details) for details in listed])
