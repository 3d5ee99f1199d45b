# ruff: noqa: N802 (the methods have the names of the API)
"""The servicer's methods on leases and submissions."""

from __future__ import annotations

from typing import Any

from rekindle.api.scheduler.v1 import records_pb2
from rekindle.api.scheduler.v1 import scheduler_pb2 as pb
from rekindle.errors import LeaseLost

from rekindle_scheduler import wire
from rekindle_scheduler.domain.enums import ReviewState
from rekindle_scheduler.domain.ids import CaseId, LeaseId, ProjectId, ReceiptId
from rekindle_scheduler.domain.volumes import Receipt
from rekindle_scheduler.grpc.base import Handlers
from rekindle_scheduler.grpc.convert import duration_of, lease_to_api, no_case_to_api, submission_to_api
from rekindle_scheduler.grpc.labels import label_from_api
from rekindle_scheduler.grpc.pages import next_token, page_size, place_of
from rekindle_scheduler.state import SubmissionFilter, UnitOfWork
from rekindle_scheduler.usecases import leases, submissions


class LeaseHandlers(Handlers):
    """Leases and submissions."""

    async def LeaseNextCase(self, request: pb.LeaseNextCaseRequest, _: Any) -> pb.LeaseNextCaseResponse:
        project_id, duration = ProjectId(request.project_id), duration_of(request)

        def work(uow: UnitOfWork, principal: Any) -> pb.LeaseNextCaseResponse:
            outcome = leases.lease_next_case(uow, principal, project_id, duration, request.tool)
            if isinstance(outcome, leases.NoCase):
                return pb.LeaseNextCaseResponse(none=no_case_to_api(outcome))
            return pb.LeaseNextCaseResponse(lease=lease_to_api(outcome))

        return await self._mutate(
            request, pb.LeaseNextCaseResponse, work, changed=lambda found: found.HasField("lease")
        )

    async def LeaseCase(self, request: pb.LeaseCaseRequest, _: Any) -> pb.LeaseCaseResponse:
        project_id, case_id, duration = (
            ProjectId(request.project_id),
            CaseId(request.case_id),
            duration_of(request),
        )

        def work(uow: UnitOfWork, principal: Any) -> pb.LeaseCaseResponse:
            details = leases.lease_case(
                uow,
                principal,
                project_id,
                case_id,
                duration,
                request.round,
                revise=request.revise,
                tool=request.tool,
            )
            return pb.LeaseCaseResponse(lease=lease_to_api(details))

        return await self._mutate(request, pb.LeaseCaseResponse, work)

    async def RenewLease(self, request: pb.RenewLeaseRequest, _: Any) -> pb.RenewLeaseResponse:
        project_id, lease_id, duration = (
            ProjectId(request.project_id),
            LeaseId(request.lease_id),
            duration_of(request),
        )
        return await self._mutate(
            request,
            pb.RenewLeaseResponse,
            lambda uow, principal: pb.RenewLeaseResponse(
                lease=lease_to_api(
                    leases.renew_lease(uow, principal, project_id, lease_id, request.fencing_token, duration)
                )
            ),
        )

    async def ReleaseLease(self, request: pb.ReleaseLeaseRequest, _: Any) -> pb.ReleaseLeaseResponse:
        project_id, lease_id = ProjectId(request.project_id), LeaseId(request.lease_id)
        segments = wire.segments_from_api(request.time_segments)
        return await self._mutate(
            request,
            pb.ReleaseLeaseResponse,
            lambda uow, principal: pb.ReleaseLeaseResponse(
                lease=lease_to_api(
                    leases.release_lease(
                        uow,
                        principal,
                        project_id,
                        lease_id,
                        request.fencing_token,
                        reason=request.reason,
                        segments=segments,
                    )
                )
            ),
        )

    async def ListMyLeases(self, request: pb.ListMyLeasesRequest, _: Any) -> pb.ListMyLeasesResponse:
        project_id = ProjectId(request.project_id)
        found = await self._read(lambda uow, principal: leases.my_leases(uow, principal, project_id))
        return pb.ListMyLeasesResponse(leases=[lease_to_api(details) for details in found])

    async def Submit(self, request: pb.SubmitRequest, _: Any) -> pb.SubmitResponse:
        project_id = ProjectId(request.project_id)
        label = label_from_api(request)

        def receipt() -> Receipt:
            return self._backend.inference.receipt(project_id, ReceiptId(request.receipt_id))

        def work(uow: UnitOfWork, principal: Any, found: Receipt) -> pb.SubmitResponse:
            stored = submissions.submit(uow, principal, project_id, label(found))
            return pb.SubmitResponse(submission=submission_to_api(stored))

        response = await self._mutate_prepared(request, pb.SubmitResponse, receipt, work)
        # The draft is stored by now, so the refusal can be told; a retry comes here as well.
        if response.submission.review_state == records_pb2.REVIEW_STATE_DRAFT:
            raise LeaseLost(
                "the lease is lost, so the label does not count: it is kept as a draft",
                metadata={"draft_submission_id": response.submission.submission_id},
            )
        return response

    async def ListSubmissions(self, request: pb.ListSubmissionsRequest, _: Any) -> pb.ListSubmissionsResponse:
        size, (after,) = page_size(request.page_size), place_of(request, [0])
        project_id = ProjectId(request.project_id)
        states = [
            wire.word_of(ReviewState, records_pb2.ReviewState, state, f"review_states[{index}]", "REVIEW_STATE_")
            for index, state in enumerate(request.review_states)
        ]
        which = SubmissionFilter(
            case_id=CaseId(request.case_id) if request.case_id else None,
            round=request.round,
            states=frozenset(states),
        )
        found = await self._read(
            lambda uow, principal: submissions.list_submissions(
                uow, principal, project_id, which, mine=request.mine, after=after, limit=size + 1
            )
        )
        token = next_token(request, [found[size - 1][0]]) if len(found) > size else ""
        listed = [submission_to_api(submission) for _, submission in found[:size]]
        return pb.ListSubmissionsResponse(submissions=listed, next_page_token=token)
