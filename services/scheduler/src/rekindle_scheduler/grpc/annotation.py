# ruff: noqa: N802 (the methods have the names of the API)
"""The servicer's methods on drafts, sessions, and what becomes of a label."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rekindle.api.scheduler.v1 import annotation_pb2 as pb
from rekindle.api.scheduler.v1 import scheduler_pb2
from rekindle.errors import LeaseLost

from rekindle_scheduler import wire
from rekindle_scheduler.domain.enums import ReviewVerdict
from rekindle_scheduler.domain.ids import CaseId, DraftId, LeaseId, ProjectId, ReceiptId, SessionId, SubmissionId
from rekindle_scheduler.domain.volumes import Receipt
from rekindle_scheduler.grpc.base import Handlers
from rekindle_scheduler.grpc.convert import (
    case_to_api,
    draft_to_api,
    duration_of,
    lease_to_api,
    no_case_to_api,
    session_to_api,
    submission_to_api,
)
from rekindle_scheduler.grpc.labels import label_from_api
from rekindle_scheduler.grpc.pages import next_token, page_size, place_of
from rekindle_scheduler.state import UnitOfWork
from rekindle_scheduler.usecases import drafts, reviews, sessions
from rekindle_scheduler.usecases.leases import NoCase

#: Before every moment that a list can hold.
_FIRST = [datetime.min.replace(tzinfo=UTC).isoformat(), ""]


class AnnotationHandlers(Handlers):
    """Drafts, sessions, reviews and withdrawals."""

    async def SaveDraft(self, request: pb.SaveDraftRequest, _: Any) -> pb.SaveDraftResponse:
        project_id = ProjectId(request.project_id)
        label = label_from_api(request)

        def receipt() -> Receipt:
            return self._backend.inference.receipt(project_id, ReceiptId(request.receipt_id))

        def work(uow: UnitOfWork, principal: Any, found: Receipt) -> pb.SaveDraftResponse:
            note, extend = request.note, request.extend_lease
            saved = drafts.save_draft(uow, principal, project_id, label(found), note=note, extend=extend)
            return pb.SaveDraftResponse(draft=draft_to_api(saved.draft), lease=lease_to_api(saved.details))

        response = await self._mutate_prepared(request, pb.SaveDraftResponse, receipt, work)
        # It is stored by now, so the refusal can be told; a retry comes here as well.
        if response.draft.late:
            raise LeaseLost(
                "the lease is lost: what was saved is kept beside it, and its time is not booked",
                metadata={"draft_id": response.draft.draft_id},
            )
        return response

    async def GetDraft(self, request: pb.GetDraftRequest, _: Any) -> pb.GetDraftResponse:
        project_id = ProjectId(request.project_id)
        case_id = CaseId(request.case_id) if request.case_id else None
        draft_id = DraftId(request.draft_id) if request.draft_id else None
        draft = await self._read(
            lambda uow, principal: drafts.get_draft(uow, principal, project_id, case_id=case_id, draft_id=draft_id)
        )
        return pb.GetDraftResponse(draft=draft_to_api(draft))

    async def ListDrafts(self, request: pb.ListDraftsRequest, _: Any) -> pb.ListDraftsResponse:
        size, after = page_size(request.page_size), _place(request)
        project_id = ProjectId(request.project_id)
        found = await self._read(
            lambda uow, principal: drafts.list_drafts(uow, principal, project_id, after=after, limit=size + 1)
        )
        token = next_token(request, _written(found[size - 1][0])) if len(found) > size else ""
        return pb.ListDraftsResponse(drafts=[draft_to_api(draft) for _, draft in found[:size]], next_page_token=token)

    async def DiscardDraft(self, request: pb.DiscardDraftRequest, _: Any) -> pb.DiscardDraftResponse:
        project_id, draft_id = ProjectId(request.project_id), DraftId(request.draft_id)

        def work(uow: UnitOfWork, principal: Any) -> pb.DiscardDraftResponse:
            drafts.discard_draft(uow, principal, project_id, draft_id)
            return pb.DiscardDraftResponse()

        return await self._mutate(request, pb.DiscardDraftResponse, work)

    async def TakeUpLease(self, request: pb.TakeUpLeaseRequest, _: Any) -> pb.TakeUpLeaseResponse:
        project_id, lease_id = ProjectId(request.project_id), LeaseId(request.lease_id)

        def work(uow: UnitOfWork, principal: Any) -> pb.TakeUpLeaseResponse:
            taken = drafts.resume_lease(uow, principal, project_id, lease_id, request.tool)
            return pb.TakeUpLeaseResponse(
                lease=lease_to_api(taken.details),
                draft=None if taken.draft is None else draft_to_api(taken.draft),
                time_segments=[wire.segment_to_api(segment) for segment in taken.time_segments],
            )

        return await self._mutate(request, pb.TakeUpLeaseResponse, work)

    async def StartSession(
        self, request: scheduler_pb2.StartSessionRequest, _: Any
    ) -> scheduler_pb2.StartSessionResponse:
        project_id = ProjectId(request.project_id)
        wish = sessions.SessionTerms(
            minutes=request.minutes,
            detached=request.detached,
            max_cases=request.max_cases,
            duration=duration_of(request),
            tool=request.tool,
        )

        def work(uow: UnitOfWork, principal: Any) -> scheduler_pb2.StartSessionResponse:
            outcome = sessions.start_session(uow, principal, project_id, wish)
            if isinstance(outcome, NoCase):
                return scheduler_pb2.StartSessionResponse(none=no_case_to_api(outcome))
            return scheduler_pb2.StartSessionResponse(session=session_to_api(outcome))

        answer = scheduler_pb2.StartSessionResponse
        return await self._mutate(request, answer, work, changed=lambda found: found.HasField("session"))

    async def GetSession(self, request: pb.GetSessionRequest, _: Any) -> pb.GetSessionResponse:
        project_id, session_id = ProjectId(request.project_id), SessionId(request.session_id)
        details = await self._read(lambda uow, principal: sessions.get_session(uow, principal, project_id, session_id))
        return pb.GetSessionResponse(session=session_to_api(details))

    async def ListMySessions(self, request: pb.ListMySessionsRequest, _: Any) -> pb.ListMySessionsResponse:
        size, after = page_size(request.page_size), _place(request)
        project_id = ProjectId(request.project_id)
        found = await self._read(
            lambda uow, principal: sessions.my_sessions(
                uow, principal, project_id, include_ended=request.include_ended, after=after, limit=size + 1
            )
        )
        token = next_token(request, _written(found[size - 1][0])) if len(found) > size else ""
        listed = [session_to_api(details) for _, details in found[:size]]
        return pb.ListMySessionsResponse(sessions=listed, next_page_token=token)

    async def EndSession(self, request: pb.EndSessionRequest, _: Any) -> pb.EndSessionResponse:
        project_id, session_id = ProjectId(request.project_id), SessionId(request.session_id)
        held = {LeaseId(each.lease_id): each.fencing_token for each in request.held}
        return await self._mutate(
            request,
            pb.EndSessionResponse,
            lambda uow, principal: pb.EndSessionResponse(
                session=session_to_api(sessions.end_session(uow, principal, project_id, session_id, held))
            ),
        )

    async def WithdrawSubmission(self, request: pb.WithdrawSubmissionRequest, _: Any) -> pb.WithdrawSubmissionResponse:
        project_id, submission_id = ProjectId(request.project_id), SubmissionId(request.submission_id)

        def work(uow: UnitOfWork, principal: Any) -> pb.WithdrawSubmissionResponse:
            judged = reviews.withdraw_submission(uow, principal, project_id, submission_id, reason=request.reason)
            return pb.WithdrawSubmissionResponse(
                submission=submission_to_api(judged.submission), case=case_to_api(judged.case)
            )

        return await self._mutate(request, pb.WithdrawSubmissionResponse, work)

    async def ReviewSubmission(self, request: pb.ReviewSubmissionRequest, _: Any) -> pb.ReviewSubmissionResponse:
        project_id, submission_id = ProjectId(request.project_id), SubmissionId(request.submission_id)
        verdict = wire.word_of(ReviewVerdict, pb.ReviewVerdict, request.verdict, "verdict", "REVIEW_VERDICT_")

        def work(uow: UnitOfWork, principal: Any) -> pb.ReviewSubmissionResponse:
            judged = reviews.review_submission(
                uow,
                principal,
                project_id,
                submission_id,
                verdict,
                comment=request.comment,
                supersede=request.supersede,
            )
            return pb.ReviewSubmissionResponse(
                submission=submission_to_api(judged.submission), case=case_to_api(judged.case)
            )

        return await self._mutate(request, pb.ReviewSubmissionResponse, work)


def _place(request: Any) -> tuple[datetime, str]:
    moment, name = place_of(request, _FIRST)
    return datetime.fromisoformat(moment), name


def _written(place: tuple[datetime, str]) -> list[str]:
    return [place[0].isoformat(), place[1]]
