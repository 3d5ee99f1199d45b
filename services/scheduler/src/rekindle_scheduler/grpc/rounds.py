# ruff: noqa: N802 (the methods have the names of the API)
"""The servicer's methods on rounds, their events, the ledger and the report."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from rekindle.api.scheduler.v1 import scheduler_pb2 as pb

from rekindle_scheduler.domain.ids import ProjectId
from rekindle_scheduler.grpc.base import Handlers
from rekindle_scheduler.grpc.convert import (
    event_to_api,
    ledger_entry_to_api,
    ledger_to_api,
    project_to_api,
    round_to_api,
)
from rekindle_scheduler.grpc.pages import next_token, page_size, place_of
from rekindle_scheduler.usecases import ledger, rounds

_EVENTS_AT_A_TIME = 200


class RoundHandlers(Handlers):
    """Rounds, events, ledger and report."""

    async def GetRound(self, request: pb.GetRoundRequest, _: Any) -> pb.GetRoundResponse:
        project_id = ProjectId(request.project_id)
        details = await self._read(lambda uow, principal: rounds.get_round(uow, project_id, request.number))
        return pb.GetRoundResponse(round=round_to_api(details))

    async def ListRounds(self, request: pb.ListRoundsRequest, _: Any) -> pb.ListRoundsResponse:
        size, (after,) = page_size(request.page_size), place_of(request, [-1])
        project_id = ProjectId(request.project_id)
        found = await self._read(
            lambda uow, principal: rounds.list_rounds(uow, project_id, after=after, limit=size + 1)
        )
        token = next_token(request, [found[size - 1].round.number]) if len(found) > size else ""
        return pb.ListRoundsResponse(rounds=[round_to_api(details) for details in found[:size]], next_page_token=token)

    async def TrainNow(self, request: pb.TrainNowRequest, _: Any) -> pb.TrainNowResponse:
        project_id = ProjectId(request.project_id)
        return await self._mutate(
            request,
            pb.TrainNowResponse,
            lambda uow, principal: pb.TrainNowResponse(round=round_to_api(rounds.train_now(uow, project_id))),
        )

    async def WatchRounds(self, request: pb.WatchRoundsRequest, _: Any) -> AsyncIterator[pb.WatchRoundsResponse]:
        project_id, cursor = ProjectId(request.project_id), request.after_cursor
        backend = self._backend
        while True:
            heard = backend.bell.count
            after = cursor
            found = await self._read(
                lambda uow, principal, after=after: rounds.events_after(uow, project_id, after, limit=_EVENTS_AT_A_TIME)
            )
            for event in found:
                cursor = event.cursor
                yield pb.WatchRoundsResponse(event=event_to_api(event))
            if not found:
                await self._wait(heard)

    async def ListLedger(self, request: pb.ListLedgerRequest, _: Any) -> pb.ListLedgerResponse:
        size, place = page_size(request.page_size), place_of(request, ["", -1])
        project_id = ProjectId(request.project_id)
        found = await self._read(
            lambda uow, principal: ledger.list_ledger(uow, project_id, after=(place[0], place[1]), limit=size + 1)
        )
        token = next_token(request, list(found[size - 1][0])) if len(found) > size else ""
        return pb.ListLedgerResponse(
            entries=[ledger_entry_to_api(entry) for _, entry in found[:size]], next_page_token=token
        )

    async def GetReport(self, request: pb.GetReportRequest, _: Any) -> pb.GetReportResponse:
        project_id = ProjectId(request.project_id)
        report = await self._read(lambda uow, principal: ledger.report(uow, project_id))
        return pb.GetReportResponse(
            project=project_to_api(report.details),
            rounds=[round_to_api(details) for details in report.rounds],
            ledger=ledger_to_api(report.ledger),
        )
