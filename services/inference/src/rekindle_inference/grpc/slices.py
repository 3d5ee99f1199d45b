"""The calls of VolumeService that are about slices."""

# ruff: noqa: N802 - methods are named as the proto names them

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from typing import Any

import grpc
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import volumes_pb2 as messages
from rekindle.convert import to_proto
from rekindle.vocabulary import VolumeKind
from rekindle_servicekit.workers import Workers

from rekindle_inference.grpc import convert
from rekindle_inference.grpc.streams import CHUNK_BYTES
from rekindle_inference.usecases import slices as usecases

Context = grpc.aio.ServicerContext[Any, Any]


class SliceCalls:
    """Convert, call, convert. `workers` decode, reduce and ask the database."""

    def __init__(self, slices: usecases.Slices, *, workers: Workers) -> None:
        self._slices = slices
        self._slice_workers = workers

    async def ReadVolume(
        self, request: messages.ReadVolumeRequest, context: Context
    ) -> AsyncGenerator[messages.ReadVolumeResponse]:
        wanted = usecases.SliceRange(first=request.first_slice, count=request.slice_count, level=request.level)
        read = await self._slice_workers.run_cancellable(
            context,
            lambda _: usecases.read_slices(self._slices, request.project_id, request.volume_id, wanted),
        )
        yield messages.ReadVolumeResponse(header=_header(read))
        parts = read.parts()
        while (part := await self._slice_workers.run_cancellable(context, lambda _: next(parts, None))) is not None:
            for chunk in _chunks(part):
                yield messages.ReadVolumeResponse(chunk=chunk)

    async def RankSlices(self, request: messages.RankSlicesRequest, context: Context) -> messages.RankSlicesResponse:
        model_version_id, ranks = await self._slice_workers.run_blocking(
            usecases.rank_slices,
            self._slices,
            request.project_id,
            request.mask_volume_id,
            request.organ_id,
            request.limit,
        )
        return messages.RankSlicesResponse(
            slices=[
                messages.SliceRank(
                    slice=rank.slice, expected_voxels_wrong=rank.voxels_wrong, uncertainty=rank.uncertainty
                )
                for rank in ranks
            ],
            model_version_id=model_version_id,
        )


def _header(read: usecases.SlicesRead) -> messages.ReadVolumeHeader:
    columns, rows, slices = read.geometry.size
    is_image = read.record.kind is VolumeKind.IMAGE
    header = messages.ReadVolumeHeader(
        volume=convert.volume_to_proto(read.record),
        first_slice=read.first,
        slices=slices,
        rows=rows,
        columns=columns,
        voxel_type=messages.VOXEL_TYPE_INT16 if is_image else messages.VOXEL_TYPE_UINT8,
        geometry=to_proto(read.geometry, common.Geometry),
    )
    if read.window is not None:
        header.window_low, header.window_high = read.window
    return header


def _chunks(part: bytes) -> Iterator[bytes]:
    for first in range(0, len(part), CHUNK_BYTES):
        yield part[first : first + CHUNK_BYTES]
