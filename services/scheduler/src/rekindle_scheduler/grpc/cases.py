# ruff: noqa: N802 (the methods have the names of the API)
"""The servicer's methods on target cases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, TypeVar

from rekindle.api.scheduler.v1 import records_pb2
from rekindle.api.scheduler.v1 import scheduler_pb2 as pb
from rekindle.errors import FieldViolation, InvalidInput, NotFound, quoted_id

from rekindle_scheduler import wire
from rekindle_scheduler.domain.enums import CaseMark, CaseState
from rekindle_scheduler.domain.ids import CaseId, ProjectId, VolumeId
from rekindle_scheduler.domain.records import Case
from rekindle_scheduler.grpc.base import Handlers
from rekindle_scheduler.grpc.convert import case_to_api
from rekindle_scheduler.grpc.pages import next_token, page_size, place_of
from rekindle_scheduler.state import CaseFilter
from rekindle_scheduler.usecases import cases

T = TypeVar("T")

_END = object()
#: One look-up and one transaction for so many cases, where they come fast.
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
                yield pb.RegisterCasesResponse(case=case_to_api(case), created=created)

    async def GetCase(self, request: pb.GetCaseRequest, _: Any) -> pb.GetCaseResponse:
        project_id, case_id = ProjectId(request.project_id), CaseId(request.case_id)
        case = await self._read(lambda uow, principal: cases.get_case(uow, project_id, case_id))
        return pb.GetCaseResponse(case=case_to_api(case))

    async def ListCases(self, request: pb.ListCasesRequest, _: Any) -> pb.ListCasesResponse:
        size, place = page_size(request.page_size), place_of(request, [-1, -1])
        states = [
            wire.word_of(CaseState, records_pb2.CaseState, state, f"states[{index}]", "CASE_STATE_")
            for index, state in enumerate(request.states)
        ]
        which = CaseFilter(
            states=frozenset(states),
            held_out=request.held_out if request.HasField("held_out") else None,
            round=request.round,
        )
        project_id = ProjectId(request.project_id)
        found = await self._read(
            lambda uow, principal: cases.list_cases(
                uow,
                project_id,
                which,
                ranked=request.ranked,
                after=(place[0], place[1]),
                limit=size + 1,
            )
        )
        token = next_token(request, list(found[size - 1][0])) if len(found) > size else ""
        return pb.ListCasesResponse(cases=[case_to_api(case) for _, case in found[:size]], next_page_token=token)

    async def MarkCase(self, request: pb.MarkCaseRequest, _: Any) -> pb.MarkCaseResponse:
        project_id, case_id = ProjectId(request.project_id), CaseId(request.case_id)
        mark = wire.word_of(CaseMark, records_pb2.CaseMark, request.mark, "mark", "CASE_MARK_")
        return await self._mutate(
            request,
            pb.MarkCaseResponse,
            lambda uow, principal: pb.MarkCaseResponse(
                case=case_to_api(cases.mark_case(uow, project_id, case_id, mark))
            ),
        )

    async def _register(
        self, project_id: ProjectId, batch: Sequence[pb.RegisterCasesRequest]
    ) -> list[tuple[Case, bool]]:
        """Idempotent by the volumes themselves, so that a stream that broke off can simply be sent again."""
        backend = self._backend
        registrations = [
            cases.Registration(volume_id=VolumeId(each.volume_id), group_key=each.group_key) for each in batch
        ]
        volume_ids = [each.volume_id for each in registrations]

        def work() -> list[tuple[Case, bool]]:
            with backend.state.read() as uow:
                unknown = cases.unregistered(uow, project_id, volume_ids)
            volumes = backend.inference.volumes(project_id, unknown) if unknown else []
            by_id = {volume.volume_id: volume for volume in volumes}
            missing = [volume_id for volume_id in unknown if volume_id not in by_id]
            if missing:
                raise NotFound(f"volume {quoted_id(missing[0])} does not exist, or not in this project")
            with backend.state.write() as uow:
                return cases.register_cases(uow, project_id, registrations, by_id)

        answers = await backend.workers.run_blocking(work)
        backend.bell.ring()
        return answers


def _project_of(batch: Sequence[pb.RegisterCasesRequest], known: ProjectId | None) -> ProjectId:
    named = {each.project_id for each in batch if each.project_id}
    project_id = known or ProjectId(batch[0].project_id)
    if not project_id:
        problem = "must be in the first message"
        raise InvalidInput(f"project_id {problem}", violations=[FieldViolation("project_id", problem)])
    if named - {project_id}:
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
