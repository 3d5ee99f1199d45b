# ruff: noqa: N802 (the methods have the names of the API)
"""The servicer's methods on submissions: send, list, withdraw, review."""

from __future__ import annotations

from typing import Any

from rekindle.api.scheduler.v1 import annotation_pb2, records_pb2
from rekindle.api.scheduler.v1 import scheduler_pb2 as pb
from rekindle.convert import from_proto, to_proto, word_of
from rekindle.errors import LeaseLost
from rekindle_servicekit.context import principal
from rekindle_servicekit.pages import Paging

from rekindle_scheduler.domain.enums import ReviewVerdict
from rekindle_scheduler.domain.ids import ProjectId, ReceiptId, SubmissionId
from rekindle_scheduler.domain.volumes import Receipt
from rekindle_scheduler.grpc.base import Handlers
from rekindle_scheduler.state import SubmissionFilter, UnitOfWork
from rekindle_scheduler.usecases import reviews, submissions


class SubmissionHandlers(Handlers):
    """Submissions and what becomes of them."""

    async def Submit(self, request: pb.SubmitRequest, _: Any) -> pb.SubmitResponse:
        project_id, label = ProjectId(request.project_id), from_proto(request, submissions.Label)

        def work(uow: UnitOfWork, receipt: Receipt) -> pb.SubmitResponse:
            submission = submissions.submit(uow, principal(), project_id, label, receipt)
            return pb.SubmitResponse(submission=to_proto(submission, records_pb2.Submission))

        def receipt() -> Receipt:
            return self._inference.receipt(project_id, ReceiptId(request.receipt_id))

        response = await self.mutate(request, pb.SubmitResponse, work, prepare=receipt)
        # The draft is stored by now, so the refusal can be told; a retry comes here as well.
        if response.submission.review_state == records_pb2.REVIEW_STATE_DRAFT:
            raise LeaseLost(
                "the lease is lost, so the label does not count: it is kept as a draft",
                metadata={"draft_submission_id": response.submission.submission_id},
            )
        return response

    async def ListSubmissions(self, request: pb.ListSubmissionsRequest, _: Any) -> pb.ListSubmissionsResponse:
        project_id, paging = ProjectId(request.project_id), Paging(request, [0])
        wanted, after = from_proto(request, SubmissionFilter), paging.after[0]
        rows = await self.read(
            lambda uow: submissions.list_submissions(
                uow, principal(), project_id, wanted, mine=request.mine, after=after, limit=paging.limit
            )
        )
        page = paging.page(rows, lambda row: [row[0]])
        listed = [to_proto(submission, records_pb2.Submission) for _, submission in page.items]
        return pb.ListSubmissionsResponse(submissions=listed, next_page_token=page.next_token)

    async def WithdrawSubmission(
        self, request: annotation_pb2.WithdrawSubmissionRequest, _: Any
    ) -> annotation_pb2.WithdrawSubmissionResponse:
        project_id, submission_id = ProjectId(request.project_id), SubmissionId(request.submission_id)

        def work(uow: UnitOfWork) -> annotation_pb2.WithdrawSubmissionResponse:
            outcome = reviews.withdraw_submission(uow, principal(), project_id, submission_id, reason=request.reason)
            return to_proto(outcome, annotation_pb2.WithdrawSubmissionResponse)

        return await self.mutate(request, annotation_pb2.WithdrawSubmissionResponse, work)

    async def ReviewSubmission(
        self, request: annotation_pb2.ReviewSubmissionRequest, _: Any
    ) -> annotation_pb2.ReviewSubmissionResponse:
        verdict = word_of(ReviewVerdict, annotation_pb2.ReviewVerdict, request.verdict, "verdict")

        def work(uow: UnitOfWork) -> annotation_pb2.ReviewSubmissionResponse:
            outcome = reviews.review_submission(
                uow,
                principal(),
                ProjectId(request.project_id),
                SubmissionId(request.submission_id),
                verdict,
                comment=request.comment,
                supersede=request.supersede,
            )
            return to_proto(outcome, annotation_pb2.ReviewSubmissionResponse)

        return await self.mutate(request, annotation_pb2.ReviewSubmissionResponse, work)
