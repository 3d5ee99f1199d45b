"""VolumeService."""

# ruff: noqa: N802 - methods are named as the proto names them

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator

from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import volumes_pb2 as messages
from rekindle.api.inference.v1.volumes_pb2_grpc import VolumeServiceServicer
from rekindle.convert import from_proto, number_of
from rekindle.vocabulary import FileFormat
from rekindle_servicekit import context as ambient
from rekindle_servicekit.pages import Paging
from rekindle_servicekit.workers import Workers

from rekindle_inference.grpc import convert
from rekindle_inference.grpc.calls import Context, Folders, make_request
from rekindle_inference.grpc.purges import PurgeCalls
from rekindle_inference.grpc.slices import SliceCalls
from rekindle_inference.grpc.streams import (
    check_arrived,
    check_sha256,
    chunks_of,
    receive_file,
    receive_header,
    sha256_of,
)
from rekindle_inference.grpc.uploads import UploadCalls
from rekindle_inference.usecases import volumes as usecases
from rekindle_inference.usecases.checks import check_project
from rekindle_inference.usecases.slices import Slices
from rekindle_inference.usecases.sources import find_volumes
from rekindle_inference.usecases.studies import upload_study
from rekindle_inference.usecases.uploads import Uploads


class VolumeServicer(UploadCalls, SliceCalls, PurgeCalls, VolumeServiceServicer):
    """Convert, call, convert. `transfers` moves bytes and asks the database, `compute` reads and measures."""

    def __init__(
        self,
        volumes: usecases.Volumes,
        uploads: Uploads,
        slices: Slices,
        folders: Folders,
        *,
        transfers: Workers,
        compute: Workers,
        max_file_bytes: int,
    ) -> None:
        UploadCalls.__init__(self, uploads, folders, transfers=transfers, compute=compute)
        SliceCalls.__init__(self, slices, workers=transfers)
        PurgeCalls.__init__(self, volumes.state, volumes.objects, transfers)
        self._volumes = volumes
        self._folders = folders
        self._transfers = transfers
        self._compute = compute
        self._max_file_bytes = max_file_bytes

    async def UploadVolume(
        self, request_iterator: AsyncIterator[messages.UploadVolumeRequest], context: Context
    ) -> messages.UploadVolumeResponse:
        header: messages.UploadVolumeHeader = await receive_header(request_iterator)
        upload = from_proto(header, usecases.Upload)
        usecases.check_upload(upload)
        check_sha256(header.sha256)
        request = make_request("UploadVolume", header.request_id, header)
        with ambient.bind(project=header.project_id), self._folders.folder() as folder:
            received = await receive_file(
                request_iterator, folder / "upload", max_bytes=self._max_file_bytes, workers=self._transfers
            )
            check_arrived(received, header.sha256)
            uploaded = await self._compute.run_cancellable(
                context,
                lambda stop: usecases.upload_volume(self._volumes, request, upload, received.path, stop),
            )
        receipt = uploaded.receipt
        return messages.UploadVolumeResponse(
            volume=convert.volume_to_proto(uploaded.volume),
            receipt=None if receipt is None else convert.receipt_to_proto(receipt),
        )

    async def UploadStudy(
        self, request_iterator: AsyncIterator[messages.UploadStudyRequest], context: Context
    ) -> messages.UploadStudyResponse:
        header: messages.UploadStudyHeader = await receive_header(request_iterator)
        check_project(header.project_id)
        check_sha256(header.sha256)
        request = make_request("UploadStudy", header.request_id, header)
        with ambient.bind(project=header.project_id), self._folders.folder() as folder:
            received = await receive_file(
                request_iterator, folder / "upload", max_bytes=self._max_file_bytes, workers=self._transfers
            )
            check_arrived(received, header.sha256)
            outcomes = await self._compute.run_cancellable(
                context,
                lambda stop: upload_study(
                    self._volumes, request, header.project_id, header.sha256, received.path, stop
                ),
            )
        return messages.UploadStudyResponse(series=[convert.outcome_to_proto(outcome) for outcome in outcomes])

    async def FindVolumes(self, request: messages.FindVolumesRequest, context: Context) -> messages.FindVolumesResponse:
        page = await self._transfers.run_blocking(
            find_volumes,
            self._volumes.state,
            request.project_id,
            convert.criteria_from_proto(request),
            Paging(request, ["", ""]),
        )
        return messages.FindVolumesResponse(
            volumes=[convert.volume_to_proto(volume, is_whole=False) for volume in page.items],
            next_page_token=page.next_token,
        )

    async def DownloadVolume(
        self, request: messages.DownloadVolumeRequest, context: Context
    ) -> AsyncGenerator[messages.DownloadVolumeResponse]:
        format = convert.format_from_proto(request.format, FileFormat.NIFTI, field="format")
        organs = convert.organs_from_proto(request.organs)
        # A SEG is encoded by a process of its own, which counts as work; the others are mostly bytes moved.
        workers = self._compute if format is FileFormat.DICOM_SEG else self._transfers
        with self._folders.folder() as folder:
            record, path = await workers.run_cancellable(
                context,
                lambda stop: usecases.write_volume(
                    self._volumes, request.project_id, request.volume_id, format, organs, folder, stop
                ),
            )
            header = messages.DownloadHeader(
                volume=convert.volume_to_proto(record),
                format=number_of(common.FileFormat, format),
                sha256=await self._transfers.run_blocking(sha256_of, path),
                size_bytes=path.stat().st_size,
            )
            yield messages.DownloadVolumeResponse(header=header)
            async for chunk in chunks_of(path, self._transfers):
                yield messages.DownloadVolumeResponse(chunk=chunk)

    async def GetVolume(self, request: messages.GetVolumeRequest, context: Context) -> messages.GetVolumeResponse:
        volume = await self._transfers.run_blocking(
            usecases.get_volume, self._volumes, request.project_id, request.volume_id
        )
        return messages.GetVolumeResponse(volume=convert.volume_to_proto(volume))

    async def BatchGetVolumes(
        self, request: messages.BatchGetVolumesRequest, context: Context
    ) -> messages.BatchGetVolumesResponse:
        found = await self._transfers.run_blocking(
            usecases.get_volumes, self._volumes, request.project_id, list(request.volume_ids)
        )
        return messages.BatchGetVolumesResponse(
            volumes=[convert.volume_to_proto(volume, is_whole=False) for volume in found]
        )

    async def GetReceipt(self, request: messages.GetReceiptRequest, context: Context) -> messages.GetReceiptResponse:
        receipt = await self._transfers.run_blocking(
            usecases.get_receipt, self._volumes, request.project_id, request.receipt_id
        )
        return messages.GetReceiptResponse(receipt=convert.receipt_to_proto(receipt))
