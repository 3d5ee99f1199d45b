# ruff: noqa: N802 (the methods have the names of the API)
"""SegmentationService: convert, call, convert.

What a mutation keeps is an id: a retry is answered with what the id stands for by then, and no answer that is kept
names an instance of an image.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass

from rekindle.api.inference.v1 import segmentations_pb2 as messages
from rekindle.api.inference.v1.segmentations_pb2_grpc import SegmentationServiceServicer
from rekindle.convert import from_proto
from rekindle_servicekit import handlers
from rekindle_servicekit.handlers import Handlers, News
from rekindle_servicekit.pages import Paging

from rekindle_inference.grpc import convert
from rekindle_inference.grpc.calls import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Context
from rekindle_inference.state import UnitOfWork
from rekindle_inference.usecases import results, segmentations
from rekindle_inference.usecases.checks import wrong_field
from rekindle_inference.usecases.segmentations import QueueRules, SegmentationView


@dataclass(frozen=True, kw_only=True)
class Backend(handlers.Backend[UnitOfWork]):
    """What the servicer works with; the bell rings when a segmentation or a feed has changed."""

    rules: QueueRules
    #: Stops work on a segmentation in this process.
    call_off: Callable[[str], None]


class SegmentationServicer(Handlers[UnitOfWork], SegmentationServiceServicer):
    """Durable segmentations, the feed of results, and quality limits."""

    _backend: Backend

    def __init__(self, backend: Backend) -> None:
        super().__init__(backend)

    async def CreateSegmentation(
        self, request: messages.CreateSegmentationRequest, context: Context
    ) -> messages.CreateSegmentationResponse:
        wanted, rules = convert.create_segmentation_from_proto(request), self._backend.rules

        def create(uow: UnitOfWork) -> messages.CreateSegmentationResponse:
            segmentation_id = segmentations.create_segmentation(uow, rules, request.project_id, wanted)
            return messages.CreateSegmentationResponse(
                segmentation=messages.Segmentation(segmentation_id=segmentation_id)
            )

        response = await self.mutate(request, messages.CreateSegmentationResponse, create)
        view = await self._segmentation(request.project_id, response.segmentation.segmentation_id)
        return messages.CreateSegmentationResponse(segmentation=convert.segmentation_to_proto(view))

    async def GetSegmentation(
        self, request: messages.GetSegmentationRequest, context: Context
    ) -> messages.GetSegmentationResponse:
        view = await self._segmentation(request.project_id, request.segmentation_id)
        return messages.GetSegmentationResponse(segmentation=convert.segmentation_to_proto(view))

    async def ListSegmentations(
        self, request: messages.ListSegmentationsRequest, context: Context
    ) -> messages.ListSegmentationsResponse:
        paging = Paging(request, ["", ""], default_size=DEFAULT_PAGE_SIZE, max_size=MAX_PAGE_SIZE)
        states = convert.states_from_proto(request.states)
        page = await self.read(
            lambda uow: segmentations.list_segmentations(
                uow, request.project_id, states=states, volume_id=request.volume_id, paging=paging
            )
        )
        return messages.ListSegmentationsResponse(
            segmentations=[convert.segmentation_to_proto(view) for view in page.items],
            next_page_token=page.next_token,
        )

    async def CancelSegmentation(
        self, request: messages.CancelSegmentationRequest, context: Context
    ) -> messages.CancelSegmentationResponse:
        def cancel(uow: UnitOfWork) -> messages.CancelSegmentationResponse:
            segmentations.cancel_segmentation(uow, request.project_id, request.segmentation_id)
            return messages.CancelSegmentationResponse()

        await self.mutate(request, messages.CancelSegmentationResponse, cancel)
        self._backend.call_off(request.segmentation_id)
        view = await self._segmentation(request.project_id, request.segmentation_id)
        return messages.CancelSegmentationResponse(segmentation=convert.segmentation_to_proto(view))

    async def WatchSegmentation(
        self, request: messages.WatchSegmentationRequest, context: Context
    ) -> AsyncGenerator[messages.WatchSegmentationResponse]:
        if request.after_cursor < 0:
            raise wrong_field("after_cursor", "must be 0, or the cursor of an answer before")
        cursor = request.after_cursor
        position: int | None = None

        async def look() -> News:
            nonlocal cursor, position
            view = await self._segmentation(request.project_id, request.segmentation_id)
            revision, has_ended = view.segmentation.revision, view.segmentation.ended
            # The end is told to all who ask, also to those who may have heard of it.
            is_news = revision > cursor or has_ended or position not in (None, view.position)
            cursor, position = max(cursor, revision), view.position
            message = convert.segmentation_to_proto(view)
            answer = messages.WatchSegmentationResponse(cursor=revision, segmentation=message)
            return News([answer] if is_news else [], has_ended)

        async for answer in self.watch(look):
            yield answer

    async def GetResult(self, request: messages.GetResultRequest, context: Context) -> messages.GetResultResponse:
        result = await self.read(lambda uow: results.get_result(uow, request.project_id, request.result_id))
        return messages.GetResultResponse(result=convert.result_to_proto(result))

    async def ListResults(self, request: messages.ListResultsRequest, context: Context) -> messages.ListResultsResponse:
        paging = Paging(request, [0], default_size=DEFAULT_PAGE_SIZE, max_size=MAX_PAGE_SIZE)
        page = await self.read(lambda uow: results.list_results(uow, request.project_id, request.volume_id, paging))
        return messages.ListResultsResponse(
            results=[convert.result_to_proto(result) for result in page.items], next_page_token=page.next_token
        )

    async def WatchResults(
        self, request: messages.WatchResultsRequest, context: Context
    ) -> AsyncGenerator[messages.WatchResultsResponse]:
        cursor = request.after_cursor

        async def look() -> News:
            nonlocal cursor
            page = await self.read(lambda uow: results.results_after(uow, request.project_id, cursor))
            cursor = page[-1].cursor if page else cursor
            return News([messages.WatchResultsResponse(result=convert.result_to_proto(result)) for result in page])

        async for answer in self.watch(look):
            yield answer

    async def PublishResult(
        self, request: messages.PublishResultRequest, context: Context
    ) -> messages.PublishResultResponse:
        publication = from_proto(request, results.PublishRequest)

        def publish(uow: UnitOfWork) -> messages.PublishResultResponse:
            result = results.publish_result(uow, request.project_id, publication)
            return messages.PublishResultResponse(result=messages.Result(result_id=result.result_id))

        response = await self.mutate(request, messages.PublishResultResponse, publish)
        result = await self.read(lambda uow: results.get_result(uow, request.project_id, response.result.result_id))
        return messages.PublishResultResponse(result=convert.result_to_proto(result))

    async def SetQualityLimits(
        self, request: messages.SetQualityLimitsRequest, context: Context
    ) -> messages.SetQualityLimitsResponse:
        limits = convert.limits_from_proto(request.limits)

        def set_limits(uow: UnitOfWork) -> messages.SetQualityLimitsResponse:
            results.set_limits(uow, request.project_id, limits)
            return messages.SetQualityLimitsResponse()

        await self.mutate(request, messages.SetQualityLimitsResponse, set_limits)
        valid = await self.read(lambda uow: results.get_limits(uow, request.project_id))
        return messages.SetQualityLimitsResponse(limits=convert.limits_to_proto(valid))

    async def GetQualityLimits(
        self, request: messages.GetQualityLimitsRequest, context: Context
    ) -> messages.GetQualityLimitsResponse:
        limits = await self.read(lambda uow: results.get_limits(uow, request.project_id))
        return messages.GetQualityLimitsResponse(limits=convert.limits_to_proto(limits))

    async def _segmentation(self, project_id: str, segmentation_id: str) -> SegmentationView:
        return await self.read(lambda uow: segmentations.get_segmentation(uow, project_id, segmentation_id))
