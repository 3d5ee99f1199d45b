# ruff: noqa: N802 (the methods have the names of the API)
"""The servicer's methods on drafts."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from rekindle.api.scheduler.v1 import annotation_pb2 as pb
from rekindle.convert import from_proto, to_proto
from rekindle.errors import LeaseLost
from rekindle_servicekit.context import principal
from rekindle_servicekit.pages import Paging

from rekindle_scheduler.domain.ids import CaseId, DraftId, ProjectId, ReceiptId
from rekindle_scheduler.domain.volumes import Receipt
from rekindle_scheduler.grpc.base import Handlers
from rekindle_scheduler.grpc.convert import lease_to_proto
from rekindle_scheduler.state import UnitOfWork
from rekindle_scheduler.usecases import drafts
from rekindle_scheduler.usecases.submissions import Label

#: Place before every moment that a list can hold.
BEFORE_ALL = [datetime.min.replace(tzinfo=UTC).isoformat(), ""]


class DraftHandlers(Handlers):
    """Drafts."""

    async def SaveDraft(self, request: pb.SaveDraftRequest, _: Any) -> pb.SaveDraftResponse:
        project_id, label = ProjectId(request.project_id), from_proto(request, Label)

        def work(uow: UnitOfWork, receipt: Receipt) -> pb.SaveDraftResponse:
            saved = drafts.save_draft(
                uow, principal(), project_id, label, receipt, note=request.note, extend=request.extend_lease
            )
            return pb.SaveDraftResponse(draft=to_proto(saved.draft, pb.Draft), lease=lease_to_proto(saved.details))

        def receipt() -> Receipt:
            return self._inference.receipt(project_id, ReceiptId(request.receipt_id))

        response = await self.mutate(request, pb.SaveDraftResponse, work, prepare=receipt)
        # It is stored by now, so the refusal can be told; a retry comes here as well.
        if response.draft.late:
            raise LeaseLost(
                "the lease is lost: what was saved is kept beside it, and its time is not booked",
                metadata={"draft_id": response.draft.draft_id},
            )
        return response

    async def GetDraft(self, request: pb.GetDraftRequest, _: Any) -> pb.GetDraftResponse:
        case_id = CaseId(request.case_id) if request.case_id else None
        draft_id = DraftId(request.draft_id) if request.draft_id else None
        draft = await self.read(
            lambda uow: drafts.get_draft(
                uow, principal(), ProjectId(request.project_id), case_id=case_id, draft_id=draft_id
            )
        )
        return pb.GetDraftResponse(draft=to_proto(draft, pb.Draft))

    async def ListDrafts(self, request: pb.ListDraftsRequest, _: Any) -> pb.ListDraftsResponse:
        project_id, paging = ProjectId(request.project_id), Paging(request, BEFORE_ALL)
        after = moment_and_id(paging)
        rows = await self.read(
            lambda uow: drafts.list_drafts(uow, principal(), project_id, after=after, limit=paging.limit)
        )
        page = paging.page(rows, lambda row: [row[0][0].isoformat(), row[0][1]])
        listed = [to_proto(draft, pb.Draft) for _, draft in page.items]
        return pb.ListDraftsResponse(drafts=listed, next_page_token=page.next_token)

    async def DiscardDraft(self, request: pb.DiscardDraftRequest, _: Any) -> pb.DiscardDraftResponse:
        project_id, draft_id = ProjectId(request.project_id), DraftId(request.draft_id)

        def work(uow: UnitOfWork) -> pb.DiscardDraftResponse:
            drafts.discard_draft(uow, principal(), project_id, draft_id)
            return pb.DiscardDraftResponse()

        return await self.mutate(request, pb.DiscardDraftResponse, work)


def moment_and_id(paging: Paging) -> tuple[datetime, str]:
    """The place behind which a page of a list by time begins."""
    moment, name = paging.after
    return datetime.fromisoformat(moment), name
