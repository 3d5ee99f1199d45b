# ruff: noqa: N802 (the methods have the names of the API)
"""The servicer's methods on target cases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

from rekindle.api.scheduler.v1 import records_pb2
from rekindle.api.scheduler.v1 import scheduler_pb2 as pb
from rekindle.convert import from_proto, to_proto, word_of
from rekindle.errors import FieldViolation, InvalidInput, NotFound, quoted_id
from rekindle_servicekit.pages import Paging

from rekindle_scheduler.domain.cases import Case
from rekindle_scheduler.domain.enums import CaseMark
from rekindle_scheduler.domain.ids import CaseId, ProjectId
from rekindle_scheduler.grpc.base import Handlers
from rekindle_scheduler.state import CaseFilter, UnitOfWork
from rekindle_scheduler.usecases import cases

T = TypeVar("T")

_END = object()
#: Cases that are looked up and registered in one transaction, where they come fast.
_BATCH = 200


class CaseHandlers(Handlers):
    """Target cases."""

    async def RegisterCases(
        self, requests: AsyncIterator[pb.RegisterCasesRequest], _: Any
    ) -> AsyncIterator[pb.RegisterCasesResponse]:
        project_id: ProjectId | None = None
        async for batch in in_batches(requests, _BATCH):
            project_id = _project_of(batch, project_id)
            for case, created in await self._register(project_id, batch):
                yield pb.RegisterCasesResponse(case=to_proto(case, records_pb2.Case), created=created)

    async def GetCase(self, request: pb.GetCaseRequest, _: Any) -> pb.GetCaseResponse:
        project_id, case_id = ProjectId(request.project_id), CaseId(request.case_id)
        case = await self.read(lambda uow: cases.get_case(uow, project_id, case_id))
        return pb.GetCaseResponse(case=to_proto(case, records_pb2.Case))

    async def ListCases(self, request: pb.ListCasesRequest, _: Any) -> pb.ListCasesResponse:
        paging, wanted = Paging(request, [-1, -1]), from_proto(request, CaseFilter)
        first, second = paging.after
        rows = await self.read(
            lambda uow: cases.list_cases(
                uow,
                ProjectId(request.project_id),
                wanted,
                ranked=request.ranked,
                after=(first, second),
                limit=paging.limit,
            )
        )
        page = paging.page(rows, lambda row: [*row[0]])
        listed = [to_proto(case, records_pb2.Case) for _, case in page.items]
        return pb.ListCasesResponse(cases=listed, next_page_token=page.next_token)

    async def MarkCase(self, request: pb.MarkCaseRequest, _: Any) -> pb.MarkCaseResponse:
        mark = word_of(CaseMark, records_pb2.CaseMark, request.mark, "mark")

        def work(uow: UnitOfWork) -> pb.MarkCaseResponse:
            case = cases.mark_case(uow, ProjectId(request.project_id), CaseId(request.case_id), mark)
            return pb.MarkCaseResponse(case=to_proto(case, records_pb2.Case))

        return await self.mutate(request, pb.MarkCaseResponse, work)

    async def _register(
        self, project_id: ProjectId, batch: Sequence[pb.RegisterCasesRequest]
    ) -> list[tuple[Case, bool]]:
        """Idempotent by the volumes themselves, so that a stream that broke off can simply be sent again."""
        backend, inference = self._backend, self._inference
        registrations = [from_proto(request, cases.Registration) for request in batch]
        volume_ids = [registration.volume_id for registration in registrations]

        def work() -> list[tuple[Case, bool]]:
            with backend.state.read() as uow:
                unknown = cases.unregistered(uow, project_id, volume_ids)
            volumes = inference.volumes(project_id, unknown) if unknown else []
            by_id = {volume.volume_id: volume for volume in volumes}
            missing = [volume_id for volume_id in unknown if volume_id not in by_id]
            if missing:
                raise NotFound(f"volume {quoted_id(missing[0])} does not exist, or not in this project")
            with backend.state.write() as uow:
                return cases.register_cases(uow, project_id, registrations, by_id)

        answers = await backend.workers.run_blocking(work)
        backend.bell.ring()
        return answers


def _project_of(batch: Sequence[pb.RegisterCasesRequest], begun: ProjectId | None) -> ProjectId:
    ids = {request.project_id for request in batch if request.project_id}
    project_id = begun or ProjectId(batch[0].project_id)
    if not project_id:
        problem = "must be in the first message"
        raise InvalidInput(f"project_id {problem}", violations=[FieldViolation("project_id", problem)])
    if ids - {project_id}:
        problem = "must be the same in the whole stream"
        raise InvalidInput(f"project_id {problem}", violations=[FieldViolation("project_id", problem)])
    return project_id


async def in_batches(items: AsyncIterator[T], largest: int) -> AsyncIterator[list[T]]:
    """What came while the last batch was worked on, at most `largest`; a slow sender is answered one by one.

    An error of the stream is raised behind the items before it.
    """
    # Bounded, so that a sender who is faster than we are is held back by flow control.
    queue: asyncio.Queue[object] = asyncio.Queue(largest)
    filling = asyncio.create_task(_fill(queue, items))
    try:
        while True:
            batch = [await queue.get()]
            while len(batch) < largest and not queue.empty():
                batch.append(queue.get_nowait())
            has_ended = batch[-1] is _END
            wanted: list[T] = [item for item in batch if item is not _END]  # type: ignore[misc]  # pyright: ignore[reportAssignmentType]
            if wanted:
                yield wanted
            if has_ended:
                await filling
                return
    finally:
        filling.cancel()


async def _fill(queue: asyncio.Queue[object], items: AsyncIterator[T]) -> None:
    try:
        async for item in items:
            await queue.put(item)
    finally:
        await queue.put(_END)
