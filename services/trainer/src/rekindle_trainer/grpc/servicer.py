"""TrainerService: convert, call, convert."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from typing import Any, Final

import grpc
from rekindle.api.trainer.v1 import trainer_pb2 as pb
from rekindle.api.trainer.v1 import trainer_pb2_grpc
from rekindle.errors import DependencyUnavailable, FieldViolation, InvalidInput
from rekindle_servicekit.context import bind, principal
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.workers import Workers

from rekindle_trainer.grpc.convert import read_limits, read_spec, write_limits, write_metric, write_report, write_run
from rekindle_trainer.ports import PurgeState, State
from rekindle_trainer.usecases import runs as usecases
from rekindle_trainer.usecases.purges import purge_examples

ServicerContext = grpc.aio.ServicerContext[Any, Any]
_WATCH_POLL_S: Final = 0.25


class TrainerServicer(trainer_pb2_grpc.TrainerServiceServicer):
    """The trainer's API over its use cases."""

    def __init__(
        self,
        state: State,
        objects: Objects,
        catalogue: Mapping[str, frozenset[str]],
        advance: Callable[[str], None],
        workers: Workers,
        stopping: asyncio.Event,
        purges: PurgeState,
        gpus: int = 0,
    ) -> None:
        self._state = state
        self._purges = purges
        self._objects = objects
        self._catalogue = catalogue
        self._advance = advance
        self._workers = workers
        self._stopping = stopping
        #: That one training process takes.
        self._gpus = gpus

    async def StartRun(  # noqa: N802
        self, request: pb.StartRunRequest, context: ServicerContext
    ) -> pb.StartRunResponse:
        with bind(project=request.project_id, run=request.run_id):
            run = await self._workers.run_blocking(
                usecases.start_run,
                self._state,
                self._objects,
                self._catalogue,
                principal(),
                request_id=request.request_id,
                spec=read_spec(request.run_id, request.project_id, request.spec),
                limits=read_limits(request.limits) if request.HasField("limits") else None,
            )
        return pb.StartRunResponse(run=write_run(run, with_examples=not request.without_examples))

    async def GetRun(self, request: pb.GetRunRequest, context: ServicerContext) -> pb.GetRunResponse:  # noqa: N802
        run = await self._workers.run_blocking(
            usecases.get_run,
            self._state,
            principal(),
            project_id=request.project_id,
            run_id=request.run_id,
        )
        return pb.GetRunResponse(run=write_run(run, with_examples=not request.without_examples))

    async def ListRuns(  # noqa: N802
        self, request: pb.ListRunsRequest, context: ServicerContext
    ) -> pb.ListRunsResponse:
        page = await self._workers.run_blocking(
            usecases.list_runs,
            self._state,
            principal(),
            project_id=request.project_id,
            page_size=request.page_size,
            page_token=request.page_token,
        )
        runs = [write_run(run, with_examples=False) for run in page.runs]
        return pb.ListRunsResponse(runs=runs, next_page_token=page.next_page_token)

    async def CancelRun(  # noqa: N802
        self, request: pb.CancelRunRequest, context: ServicerContext
    ) -> pb.CancelRunResponse:
        caller = principal()
        with bind(project=request.project_id, run=request.run_id):
            run = await self._workers.run_cancellable(
                context,
                lambda cancellation: usecases.cancel_run(
                    self._state,
                    self._objects,
                    self._advance,
                    cancellation,
                    caller,
                    request_id=request.request_id,
                    project_id=request.project_id,
                    run_id=request.run_id,
                ),
            )
        return pb.CancelRunResponse(run=write_run(run, with_examples=not request.without_examples))

    async def WatchRun(  # noqa: N802
        self, request: pb.WatchRunRequest, context: ServicerContext
    ) -> AsyncGenerator[pb.WatchRunResponse]:
        if request.after_cursor < 0:
            problem = "must not be negative"
            raise InvalidInput(f"after_cursor {problem}", violations=[FieldViolation("after_cursor", problem)])
        cursor, told = request.after_cursor, None
        while True:
            news = await self._workers.run_blocking(
                usecases.read_news,
                self._state,
                principal(),
                project_id=request.project_id,
                run_id=request.run_id,
                after_cursor=cursor,
            )
            for metric in news.metrics:
                yield pb.WatchRunResponse(metric=write_metric(metric))
                cursor = metric.cursor
            if news.has_more:
                continue
            now = (news.run.state, news.run.reason, news.run.attempts)
            if now != told:
                yield pb.WatchRunResponse(run=write_run(news.run, with_examples=False))
                told = now
            if news.run.has_ended:
                return
            await self._pause()

    async def PurgeExamples(  # noqa: N802
        self, request: pb.PurgeExamplesRequest, context: ServicerContext
    ) -> pb.PurgeExamplesResponse:
        with bind(project=request.project_id):
            learnt = await self._workers.run_blocking(
                purge_examples,
                self._purges,
                self._objects,
                principal(),
                request_id=request.request_id,
                project_id=request.project_id,
                digests=list(request.digests),
            )
        return pb.PurgeExamplesResponse(snapshot_digests=learnt.snapshot_digests, run_ids=learnt.run_ids)

    async def SetTrainingLimits(  # noqa: N802
        self, request: pb.SetTrainingLimitsRequest, context: ServicerContext
    ) -> pb.SetTrainingLimitsResponse:
        with bind(project=request.project_id):
            limits = await self._workers.run_blocking(
                usecases.set_training_limits,
                self._state,
                principal(),
                request_id=request.request_id,
                project_id=request.project_id,
                limits=read_limits(request.limits),
            )
        return pb.SetTrainingLimitsResponse(limits=write_limits(limits))

    async def GetTrainingLimits(  # noqa: N802
        self, request: pb.GetTrainingLimitsRequest, context: ServicerContext
    ) -> pb.GetTrainingLimitsResponse:
        report = await self._workers.run_blocking(
            usecases.get_training_limits, self._state, principal(), project_id=request.project_id
        )
        return write_report(report, self._gpus)

    async def _pause(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), _WATCH_POLL_S)
        if self._stopping.is_set():
            raise DependencyUnavailable(
                "the service is stopping: watch again from the last cursor",
                reason="STOPPING",
                retry_after_s=2.0,
            )
