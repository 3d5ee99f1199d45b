"""SegmentationService."""

# ruff: noqa: N802 - methods are named as the proto names them

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import dataclass
from typing import Concatenate, ParamSpec, TypeVar

from rekindle.api.inference.v1 import segmentations_pb2 as messages
from rekindle.api.inference.v1.segmentations_pb2_grpc import SegmentationServiceServicer
from rekindle.convert import from_proto
from rekindle.errors import DependencyUnavailable
from rekindle_servicekit import context as ambient
from rekindle_servicekit.bell import Bell
from rekindle_servicekit.pages import Paging
from rekindle_servicekit.workers import Workers

from rekindle_inference.grpc import convert
from rekindle_inference.grpc.calls import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, Context, make_request
from rekindle_inference.state import State
from rekindle_inference.usecases import results as result_usecases
from rekindle_inference.usecases import segmentations as usecases
from rekindle_inference.usecases.checks import wrong_field

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Backend:
    """What the servicer works with."""

    state: State
    rules: usecases.QueueRules
    transfers: Workers
    #: Rung when a segmentation or a feed has changed.
    bell: Bell
    #: Set when the server is about to end.
    stopping: asyncio.Event
    #: Stops work on a segmentation in this process.
    call_off: Callable[[str], None]
    #: How often a watcher looks by itself, for changes that another process has made.
    watch_interval_s: float = 1.0


class SegmentationServicer(SegmentationServiceServicer):
    """Convert, call, convert."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def CreateSegmentation(
        self, request: messages.CreateSegmentationRequest, context: Context
    ) -> messages.CreateSegmentationResponse:
        identity = make_request("CreateSegmentation", request.request_id, request)
        seen = await self._write(
            request.project_id,
            usecases.create_segmentation,
            self._backend.rules,
            identity,
            request.project_id,
            convert.create_segmentation_from_proto(request),
        )
        return messages.CreateSegmentationResponse(segmentation=convert.segmentation_to_proto(seen))

    async def GetSegmentation(
        self, request: messages.GetSegmentationRequest, context: Context
    ) -> messages.GetSegmentationResponse:
        seen = await self._read(usecases.get_segmentation, request.project_id, request.segmentation_id)
        return messages.GetSegmentationResponse(segmentation=convert.segmentation_to_proto(seen))

    async def ListSegmentations(
        self, request: messages.ListSegmentationsRequest, context: Context
    ) -> messages.ListSegmentationsResponse:
        page = await self._read(
            usecases.list_segmentations,
            request.project_id,
            states=convert.states_from_proto(request.states),
            volume_id=request.volume_id,
            paging=Paging(request, ["", ""], default_size=DEFAULT_PAGE_SIZE, max_size=MAX_PAGE_SIZE),
        )
        return messages.ListSegmentationsResponse(
            segmentations=[convert.segmentation_to_proto(seen) for seen in page.items],
            next_page_token=page.next_token,
        )

    async def CancelSegmentation(
        self, request: messages.CancelSegmentationRequest, context: Context
    ) -> messages.CancelSegmentationResponse:
        identity = make_request("CancelSegmentation", request.request_id, request)
        seen = await self._write(
            request.project_id,
            usecases.cancel_segmentation,
            identity,
            request.project_id,
            request.segmentation_id,
        )
        self._backend.call_off(seen.segmentation.segmentation_id)
        return messages.CancelSegmentationResponse(segmentation=convert.segmentation_to_proto(seen))

    async def WatchSegmentation(
        self, request: messages.WatchSegmentationRequest, context: Context
    ) -> AsyncGenerator[messages.WatchSegmentationResponse]:
        if request.after_cursor < 0:
            raise wrong_field("after_cursor", "must be 0, or the cursor of an answer before")
        cursor, position = request.after_cursor, None
        while True:
            heard = self._backend.bell.count
            seen = await self._read(usecases.get_segmentation, request.project_id, request.segmentation_id)
            revision = seen.segmentation.revision
            # The end is told to whoever asks, also to those who may have heard of it.
            if revision > cursor or seen.segmentation.ended or position not in (None, seen.position):
                message = convert.segmentation_to_proto(seen)
                yield messages.WatchSegmentationResponse(cursor=revision, segmentation=message)
            if seen.segmentation.ended:
                return
            cursor, position = max(cursor, revision), seen.position
            await self._wait(heard)

    async def GetResult(self, request: messages.GetResultRequest, context: Context) -> messages.GetResultResponse:
        result = await self._read(result_usecases.get_result, request.project_id, request.result_id)
        return messages.GetResultResponse(result=convert.result_to_proto(result))

    async def ListResults(self, request: messages.ListResultsRequest, context: Context) -> messages.ListResultsResponse:
        page = await self._read(
            result_usecases.list_results,
            request.project_id,
            request.volume_id,
            Paging(request, [0], default_size=DEFAULT_PAGE_SIZE, max_size=MAX_PAGE_SIZE),
        )
        return messages.ListResultsResponse(
            results=[convert.result_to_proto(result) for result in page.items], next_page_token=page.next_token
        )

    async def WatchResults(
        self, request: messages.WatchResultsRequest, context: Context
    ) -> AsyncGenerator[messages.WatchResultsResponse]:
        cursor = request.after_cursor
        while True:
            heard = self._backend.bell.count
            found = await self._read(result_usecases.results_after, request.project_id, cursor)
            for result in found:
                yield messages.WatchResultsResponse(result=convert.result_to_proto(result))
                cursor = result.cursor
            if not found:
                await self._wait(heard)

    async def PublishResult(
        self, request: messages.PublishResultRequest, context: Context
    ) -> messages.PublishResultResponse:
        identity = make_request("PublishResult", request.request_id, request)
        result = await self._write(
            request.project_id,
            result_usecases.publish_result,
            identity,
            request.project_id,
            from_proto(request, result_usecases.PublishRequest),
        )
        return messages.PublishResultResponse(result=convert.result_to_proto(result))

    async def SetQualityLimits(
        self, request: messages.SetQualityLimitsRequest, context: Context
    ) -> messages.SetQualityLimitsResponse:
        identity = make_request("SetQualityLimits", request.request_id, request)
        limits = await self._write(
            request.project_id,
            result_usecases.set_limits,
            identity,
            request.project_id,
            convert.limits_from_proto(request.limits),
        )
        return messages.SetQualityLimitsResponse(limits=convert.limits_to_proto(limits))

    async def GetQualityLimits(
        self, request: messages.GetQualityLimitsRequest, context: Context
    ) -> messages.GetQualityLimitsResponse:
        limits = await self._read(result_usecases.get_limits, request.project_id)
        return messages.GetQualityLimitsResponse(limits=convert.limits_to_proto(limits))

    async def _read(self, usecase: Callable[Concatenate[State, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await self._backend.transfers.run_blocking(usecase, self._backend.state, *args, **kwargs)

    async def _write(
        self, project_id: str, usecase: Callable[Concatenate[State, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        with ambient.bind(project=project_id):
            changed = await self._read(usecase, *args, **kwargs)
        self._backend.bell.ring()
        return changed

    async def _wait(self, heard: int) -> None:
        """Until something may have changed. DependencyUnavailable where the server is about to end."""
        backend = self._backend
        stop = asyncio.ensure_future(backend.stopping.wait())
        ring = asyncio.ensure_future(backend.bell.wait(heard, backend.watch_interval_s))
        try:
            await asyncio.wait([stop, ring], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            ring.cancel()
        if backend.stopping.is_set():
            raise DependencyUnavailable(
                "the service is about to end: watch again, after the last cursor", reason="STOPPING", retry_after_s=1.0
            )
