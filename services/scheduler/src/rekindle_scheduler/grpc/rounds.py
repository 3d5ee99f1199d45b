# ruff: noqa: N802 (the methods have the names of the API)
"""The servicer's methods on rounds, their events, the ledger and the report."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from rekindle.api.scheduler.v1 import records_pb2
from rekindle.api.scheduler.v1 import scheduler_pb2 as pb
from rekindle.convert import to_proto
from rekindle_servicekit.handlers import News
from rekindle_servicekit.pages import Paging

from rekindle_scheduler.domain.ids import ProjectId
from rekindle_scheduler.grpc.base import Handlers
from rekindle_scheduler.grpc.convert import project_to_proto, round_to_proto
from rekindle_scheduler.state import UnitOfWork
from rekindle_scheduler.usecases import ledger, rounds

_EVENTS_AT_A_TIME = 200


class RoundHandlers(Handlers):
    """Rounds, events, ledger and report."""

    async def GetRound(self, request: pb.GetRoundRequest, _: Any) -> pb.GetRoundResponse:
        details = await self.read(lambda uow: rounds.get_round(uow, ProjectId(request.project_id), request.number))
        return pb.GetRoundResponse(round=round_to_proto(details))

    async def ListRounds(self, request: pb.ListRoundsRequest, _: Any) -> pb.ListRoundsResponse:
        project_id, paging = ProjectId(request.project_id), Paging(request, [-1])
        rows = await self.read(
            lambda uow: rounds.list_rounds(uow, project_id, after=paging.after[0], limit=paging.limit)
        )
        page = paging.page(rows, lambda details: [details.round.number])
        listed = [round_to_proto(details) for details in page.items]
        return pb.ListRoundsResponse(rounds=listed, next_page_token=page.next_token)

    async def TrainNow(self, request: pb.TrainNowRequest, _: Any) -> pb.TrainNowResponse:
        def work(uow: UnitOfWork) -> pb.TrainNowResponse:
            return pb.TrainNowResponse(round=round_to_proto(rounds.train_now(uow, ProjectId(request.project_id))))

        return await self.mutate(request, pb.TrainNowResponse, work)

    async def WatchRounds(self, request: pb.WatchRoundsRequest, _: Any) -> AsyncIterator[pb.WatchRoundsResponse]:
        project_id, cursor = ProjectId(request.project_id), request.after_cursor

        async def look() -> News:
            nonlocal cursor
            after = cursor
            events = await self.read(lambda uow: rounds.events_after(uow, project_id, after, limit=_EVENTS_AT_A_TIME))
            cursor = events[-1].cursor if events else cursor
            return News([pb.WatchRoundsResponse(event=to_proto(event, records_pb2.RoundEvent)) for event in events])

        async for message in self.watch(look):
            yield message

    async def ListLedger(self, request: pb.ListLedgerRequest, _: Any) -> pb.ListLedgerResponse:
        project_id, paging = ProjectId(request.project_id), Paging(request, ["", -1])
        source_id, segment = paging.after
        rows = await self.read(
            lambda uow: ledger.list_ledger(uow, project_id, after=(source_id, segment), limit=paging.limit)
        )
        page = paging.page(rows, lambda row: [*row[0]])
        listed = [to_proto(entry, records_pb2.LedgerEntry) for _, entry in page.items]
        return pb.ListLedgerResponse(entries=listed, next_page_token=page.next_token)

    async def GetReport(self, request: pb.GetReportRequest, _: Any) -> pb.GetReportResponse:
        report = await self.read(lambda uow: ledger.report(uow, ProjectId(request.project_id)))
        return pb.GetReportResponse(
            project=project_to_proto(report.details),
            rounds=[round_to_proto(details) for details in report.rounds],
            ledger=to_proto(report.ledger, records_pb2.LedgerSummary),
        )
