"""The calls of VolumeService that are about uploads in pieces."""

# ruff: noqa: N802 - methods are named as the proto names them

from __future__ import annotations

from typing import Any

import grpc
from rekindle.api.inference.v1 import volumes_pb2 as messages
from rekindle.convert import from_proto, to_proto
from rekindle_servicekit import context as ambient
from rekindle_servicekit.idempotency import RequestKey
from rekindle_servicekit.workers import Workers

from rekindle_inference.domain.uploads import MAX_CHUNK_BYTES, UploadRecord, UploadState
from rekindle_inference.grpc import convert
from rekindle_inference.grpc.calls import Folders, make_request
from rekindle_inference.grpc.streams import check_sha256
from rekindle_inference.usecases import finalizing
from rekindle_inference.usecases import uploads as usecases
from rekindle_inference.usecases.checks import check_project
from rekindle_inference.usecases.volumes import Upload

Context = grpc.aio.ServicerContext[Any, Any]


class UploadCalls:
    """Convert, call, convert. `transfers` moves bytes and asks the database, `compute` reads and measures."""

    def __init__(self, uploads: usecases.Uploads, folders: Folders, *, transfers: Workers, compute: Workers) -> None:
        self._uploads = uploads
        self._upload_folders = folders
        self._upload_transfers = transfers
        self._upload_compute = compute

    async def CreateUpload(
        self, request: messages.CreateUploadRequest, context: Context
    ) -> messages.CreateUploadResponse:
        header, act = _announced(request)
        check_sha256(header.sha256)
        started = await self._upload_transfers.run_blocking(
            usecases.create_upload,
            self._uploads,
            make_request("CreateUpload", request.request_id, request),
            header,
            act,
            request.size_bytes,
            presigned=request.presigned,
        )
        message = self._message(started.upload)
        if started.url:
            message.upload_url = started.url
            message.url_expire_time.FromDatetime(started.upload.created_at + self._uploads.lifetime)
        return messages.CreateUploadResponse(upload=message)

    async def PutChunk(self, request: messages.PutChunkRequest, context: Context) -> messages.PutChunkResponse:
        chunk = usecases.Chunk(
            project_id=request.project_id,
            upload_id=request.upload_id,
            offset=request.offset,
            data=request.data,
            crc32=request.crc32 if request.HasField("crc32") else None,
        )
        received = await self._upload_transfers.run_blocking(usecases.put_chunk, self._uploads, chunk)
        return messages.PutChunkResponse(received_bytes=received)

    async def QueryUpload(self, request: messages.QueryUploadRequest, context: Context) -> messages.QueryUploadResponse:
        upload = await self._upload_transfers.run_blocking(
            usecases.query_upload, self._uploads, request.project_id, request.upload_id
        )
        return messages.QueryUploadResponse(upload=self._message(upload))

    async def FinalizeUpload(
        self, request: messages.FinalizeUploadRequest, context: Context
    ) -> messages.FinalizeUploadResponse:
        identity = make_request("FinalizeUpload", request.request_id, request)
        with ambient.bind(project=request.project_id), self._upload_folders.folder() as folder:
            outcome = await self._upload_transfers.run_cancellable(
                context,
                lambda stop: finalizing.gather_upload(
                    self._uploads, identity, request.project_id, request.upload_id, folder / "upload", stop
                ),
            )
            if isinstance(outcome, finalizing.Gathered):
                gathered = outcome
                outcome = await self._upload_compute.run_cancellable(
                    context, lambda stop: finalizing.complete_upload(self._uploads, identity, gathered, stop)
                )
        return _finalized(outcome)

    async def AbortUpload(self, request: messages.AbortUploadRequest, context: Context) -> messages.AbortUploadResponse:
        upload = await self._upload_transfers.run_blocking(
            usecases.abort_upload,
            self._uploads,
            make_request("AbortUpload", request.request_id, request),
            request.project_id,
            request.upload_id,
        )
        return messages.AbortUploadResponse(upload=self._message(upload))

    def _message(self, upload: UploadRecord) -> messages.Upload:
        return to_proto(
            upload,
            messages.Upload,
            received_bytes=upload.size_bytes if upload.state is UploadState.FINALIZED else upload.received_bytes,
            max_chunk_bytes=MAX_CHUNK_BYTES,
            expire_time=upload.expires_at,
            upload_url=None,
            url_expire_time=None,
        )


def _announced(request: messages.CreateUploadRequest) -> tuple[Upload | usecases.StudyHeader, RequestKey]:
    """What the client says of the file, and the identity that a stream with the same header has."""
    header = request.header
    if not request.study:
        return from_proto(header, Upload), make_request("UploadVolume", header.request_id, header)
    study = messages.UploadStudyHeader(request_id=header.request_id, project_id=header.project_id, sha256=header.sha256)
    said = usecases.StudyHeader(project_id=check_project(header.project_id), sha256=header.sha256)
    return said, make_request("UploadStudy", header.request_id, study)


def _finalized(outcome: finalizing.Finalized) -> messages.FinalizeUploadResponse:
    uploaded = outcome.uploaded
    if uploaded is None:
        return messages.FinalizeUploadResponse(series=[convert.outcome_to_proto(one) for one in outcome.series])
    receipt = uploaded.receipt
    return messages.FinalizeUploadResponse(
        volume=convert.volume_to_proto(uploaded.volume),
        receipt=None if receipt is None else convert.receipt_to_proto(receipt),
    )
