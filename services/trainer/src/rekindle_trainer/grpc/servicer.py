# ruff: noqa: N802 (the methods have the names of the API)
"""TrainerService: convert, call, convert."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import grpc
from rekindle.api.trainer.v1 import trainer_pb2 as pb
from rekindle.api.trainer.v1 import trainer_pb2_grpc
from rekindle.convert import from_proto, to_proto
from rekindle.errors import FieldViolation, InvalidInput
from rekindle_servicekit import handlers
from rekindle_servicekit.context import bind, principal
from rekindle_servicekit.handlers import Handlers, News
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.pages import Paging

from rekindle_trainer.domain.limits import TrainingLimits
from rekindle_trainer.domain.runs import Run
from rekindle_trainer.grpc.convert import metric_to_proto, run_to_proto, spec_from_proto
from rekindle_trainer.state import State, UnitOfWork
from rekindle_trainer.usecases import purges, runs

Context = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, kw_only=True)
class Backend(handlers.Backend[UnitOfWork]):
    """What the servicer works with."""

    state: State
    objects: Objects
    #: Presets and the recipes of each.
    catalogue: Mapping[str, frozenset[str]]
    #: Looks after one run's process (see supervisor).
    advance: Callable[[str], None]
    #: Number of GPUs that one training process takes.
    gpus: int = 0


class TrainerServicer(Handlers[UnitOfWork], trainer_pb2_grpc.TrainerServiceServicer):
    """The trainer's API over its use cases."""

    _backend: Backend

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)

    async def StartRun(self, request: pb.StartRunRequest, context: Context) -> pb.StartRunResponse:
        backend, spec, limits = self._backend, spec_from_proto(request), _limits(request)

        def start(uow: UnitOfWork, _: None) -> pb.StartRunResponse:
            runs.start_run(uow, principal(), spec, limits)
            return pb.StartRunResponse()  # kept small: a retry gets the run as it is by then

        with bind(run=request.run_id):
            await self.mutate(
                request,
                pb.StartRunResponse,
                start,
                prepare=lambda: runs.examine_run(backend.state, backend.objects, backend.catalogue, spec, limits),
            )
            run = await self._run(request)
        return pb.StartRunResponse(run=run_to_proto(run, with_examples=not request.without_examples))

    async def GetRun(self, request: pb.GetRunRequest, context: Context) -> pb.GetRunResponse:
        run = await self._run(request)
        return pb.GetRunResponse(run=run_to_proto(run, with_examples=not request.without_examples))

    async def ListRuns(self, request: pb.ListRunsRequest, context: Context) -> pb.ListRunsResponse:
        paging = Paging(request, ["", ""])
        created_at, run_id = paging.after
        before = (datetime.fromisoformat(created_at), run_id) if run_id else None
        rows = await self.read(lambda uow: runs.list_runs(uow, request.project_id, before=before, limit=paging.limit))
        page = paging.page(rows, lambda run: [run.created_at.isoformat(), run.run_id])
        return pb.ListRunsResponse(
            runs=[run_to_proto(run, with_examples=False) for run in page.items], next_page_token=page.next_token
        )

    async def CancelRun(self, request: pb.CancelRunRequest, context: Context) -> pb.CancelRunResponse:
        backend = self._backend

        def request_cancel(uow: UnitOfWork) -> pb.CancelRunResponse:
            runs.request_cancel(uow, request.project_id, request.run_id)
            return pb.CancelRunResponse()

        with bind(project=request.project_id, run=request.run_id):
            await self.mutate(request, pb.CancelRunResponse, request_cancel)
            run = await backend.workers.run_cancellable(
                context,
                lambda cancellation: runs.await_cancelled(
                    backend.state, backend.objects, backend.advance, cancellation, request.project_id, request.run_id
                ),
            )
        return pb.CancelRunResponse(run=run_to_proto(run, with_examples=not request.without_examples))

    async def WatchRun(self, request: pb.WatchRunRequest, context: Context) -> AsyncIterator[pb.WatchRunResponse]:
        if request.after_cursor < 0:
            problem = "must not be negative"
            raise InvalidInput(f"after_cursor {problem}", violations=[FieldViolation("after_cursor", problem)])
        cursor = request.after_cursor
        last_state: tuple[object, ...] | None = None

        async def look() -> News:
            nonlocal cursor, last_state
            news = await self.read(lambda uow: runs.read_news(uow, request.project_id, request.run_id, cursor))
            messages = [pb.WatchRunResponse(metric=metric_to_proto(metric)) for metric in news.metrics]
            cursor = news.metrics[-1].cursor if news.metrics else cursor
            state = (news.run.state, news.run.reason, news.run.attempts)
            if state != last_state and not news.has_more:
                messages.append(pb.WatchRunResponse(run=run_to_proto(news.run, with_examples=False)))
                last_state = state
            return News(messages, has_ended=news.run.has_ended and not news.has_more)

        async for message in self.watch(look):
            yield message

    async def PurgeExamples(self, request: pb.PurgeExamplesRequest, context: Context) -> pb.PurgeExamplesResponse:
        backend, digests = self._backend, list(request.digests)

        def purge(uow: UnitOfWork) -> pb.PurgeExamplesResponse:
            return to_proto(purges.purge_examples(uow, request.project_id, digests), pb.PurgeExamplesResponse)

        response = await self.mutate(request, pb.PurgeExamplesResponse, purge)
        with bind(project=request.project_id):
            await backend.workers.run_blocking(
                purges.redact_outputs, backend.state, backend.objects, request.project_id, digests
            )
        return response

    async def SetTrainingLimits(
        self, request: pb.SetTrainingLimitsRequest, context: Context
    ) -> pb.SetTrainingLimitsResponse:
        limits = from_proto(request.limits, TrainingLimits, field="limits")

        def set_limits(uow: UnitOfWork) -> pb.SetTrainingLimitsResponse:
            runs.set_training_limits(uow, request.project_id, limits)
            return pb.SetTrainingLimitsResponse()  # a late retry is told which limits hold by then

        await self.mutate(request, pb.SetTrainingLimitsResponse, set_limits)
        report = await self.read(lambda uow: runs.get_training_limits(uow, request.project_id))
        return pb.SetTrainingLimitsResponse(limits=to_proto(report.limits, pb.TrainingLimits))

    async def GetTrainingLimits(
        self, request: pb.GetTrainingLimitsRequest, context: Context
    ) -> pb.GetTrainingLimitsResponse:
        report = await self.read(lambda uow: runs.get_training_limits(uow, request.project_id))
        return to_proto(report, pb.GetTrainingLimitsResponse, gpus_per_process=self._backend.gpus)

    async def _run(self, request: Any) -> Run:
        return await self.read(lambda uow: runs.get_run(uow, request.project_id, request.run_id))


def _limits(request: pb.StartRunRequest) -> TrainingLimits | None:
    return from_proto(request.limits, TrainingLimits, field="limits") if request.HasField("limits") else None
