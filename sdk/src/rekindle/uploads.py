"""Uploads in pieces: for lines that break, and for large files; resumed where they stopped."""

from __future__ import annotations

import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from datetime import UTC, datetime

from rekindle._call import Answer, Caller, Progress, content_request_id, new_request_id
from rekindle._services import Services
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.convert import name_of
from rekindle.errors import (
    CapacityExceeded,
    DeadlineExceeded,
    DependencyUnavailable,
    IllegalTransition,
    IntegrityError,
    NotFound,
    Unsupported,
)
from rekindle.volume_records import UploadOutcome

#: Size of the first chunk.
CHUNK_BYTES = 1024 * 1024
LEAST_CHUNK_BYTES = 64 * 1024
#: Size from which a file goes on in pieces when its stream breaks; a smaller one is sent again as a whole.
PIECES_FROM_BYTES = 4 * CHUNK_BYTES
#: Uploads of one file that may expire or be aborted before the client gives up.
_MAX_ATTEMPTS = 100
#: Reasons of failures of the network rather than the service.
_BROKEN_LINE = frozenset({"UNREACHABLE", DeadlineExceeded.default_reason})


class Upload:
    """A file on its way in. What has arrived stays when the connection, this process or the service goes away."""

    def __init__(self, services: Services, project_id: str, upload: volumes.Upload) -> None:
        self._services = services
        self._project_id = project_id
        self._upload = upload

    @property
    def id(self) -> str:
        return self._upload.upload_id

    @property
    def state(self) -> str:
        """ "open", "finalized", "aborted" or "expired"."""
        return name_of(volumes.UploadState, self._upload.state)

    @property
    def received_bytes(self) -> int:
        """Bytes that have arrived: where to go on."""
        return self._upload.received_bytes

    @property
    def size_bytes(self) -> int:
        return self._upload.size_bytes

    @property
    def expires(self) -> datetime:
        """When it expires unless more arrives."""
        return self._upload.expire_time.ToDatetime(tzinfo=UTC)

    @property
    def url(self) -> str:
        """Where the whole file can be sent by one HTTP PUT; empty where there is no such address. A secret."""
        return self._upload.upload_url

    def refresh(self) -> Upload:
        """Asks the service how much has arrived."""
        request = volumes.QueryUploadRequest(project_id=self._project_id, upload_id=self.id)
        url = self.url  # told once, when the upload is created
        self._upload = self._services.volumes.QueryUpload(request).upload
        self._upload.upload_url = url
        return self

    def put(self, offset: int, data: bytes) -> int:
        """Sends one chunk; answers where the next one begins. The same chunk again is harmless.

        Raises IllegalTransition (WRONG_OFFSET with metadata expected_offset).
        """
        request = volumes.PutChunkRequest(
            project_id=self._project_id, upload_id=self.id, offset=offset, data=data, crc32=zlib.crc32(data)
        )
        caller = self._services.caller
        timeout_s = caller.transfer_timeout_s(len(data))
        received = self._services.volumes.PutChunk(request, timeout=timeout_s).received_bytes
        self._upload.received_bytes = received
        return received

    def send(self, data: bytes, progress: Progress | None = None) -> None:
        """Sends what has not arrived of the file. Each chunk is tried as often as any call is.

        Chunks grow while all goes well, and shrink when one does not get through in time.
        """
        most = self._upload.max_chunk_bytes or CHUNK_BYTES
        size = min(most, CHUNK_BYTES)
        stalled = 0
        while self.received_bytes < len(data):
            offset = self.received_bytes
            try:
                stalled = 0 if self.put(offset, data[offset : offset + size]) > offset else stalled + 1
                size = min(2 * size, most)
            except DeadlineExceeded:
                stalled += 1
                size = max(size // 4, LEAST_CHUNK_BYTES)
                if stalled >= self._services.caller.retry.attempts:
                    raise
            except IllegalTransition as error:
                # Another process sends the same file, or a chunk arrived whose answer was lost.
                expected = error.metadata.get("expected_offset", "")
                stalled += 1
                if not expected.isdigit() or stalled >= self._services.caller.retry.attempts:
                    raise
                self._upload.received_bytes = int(expected)
            if stalled > self._services.caller.retry.attempts:
                raise IntegrityError("the service takes no chunk of this upload; abort it and send the file again")
            if progress:
                progress(self.received_bytes, len(data))

    def send_to_store(self, data: bytes) -> bool:
        """Sends the whole file to `url`; False if there is no URL or it cannot be reached."""
        if not self.url.startswith(("https://", "http://")):
            return False
        request = urllib.request.Request(self.url, data=data, method="PUT")
        request.add_header("Content-Type", "application/octet-stream")
        timeout_s = self._services.caller.transfer_timeout_s(len(data))
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                return 200 <= answer.status < 300
        except (urllib.error.URLError, OSError):
            return False

    def finalize(self) -> UploadOutcome:
        """Makes a volume of what has arrived; again it answers the same volume.

        Raises what an upload in one stream does; IllegalTransition (INCOMPLETE) where bytes are missing;
        IntegrityError where other bytes arrived than were announced: the upload then begins at 0 again.
        """
        return UploadOutcome.from_proto(_finalize(self._services, self._project_id, self))

    def abort(self) -> None:
        """Aborts the upload; the service removes what has arrived."""
        request = volumes.AbortUploadRequest(
            request_id=new_request_id(), project_id=self._project_id, upload_id=self.id
        )
        self._upload = self._services.volumes.AbortUpload(request).upload


def create(
    services: Services,
    header: volumes.UploadVolumeHeader,
    size_bytes: int,
    *,
    address: bool = False,
    study: bool = False,
) -> Upload:
    """Begins an upload, or resumes the one of the same file that has neither expired nor been aborted."""
    request = volumes.CreateUploadRequest(header=header, size_bytes=size_bytes, presigned=address, study=study)
    for attempt in range(_MAX_ATTEMPTS):
        request.request_id = f"{content_request_id(header)}-{'a' if address else 'c'}{attempt}"
        try:
            upload = services.volumes.CreateUpload(request).upload
        except NotFound as error:
            if error.reason != "UPLOAD_NOT_FOUND":
                raise
            continue  # the service has forgotten an upload that old
        if upload.state not in (volumes.UPLOAD_STATE_ABORTED, volumes.UPLOAD_STATE_EXPIRED):
            return Upload(services, header.project_id, upload)
    raise IllegalTransition(
        f"{_MAX_ATTEMPTS} uploads of this file have expired or were aborted: send it in one stream",
        reason="UPLOAD_ENDED",
    )


def upload_in_pieces(
    services: Services,
    header: volumes.UploadVolumeHeader,
    data: bytes,
    progress: Progress | None = None,
    *,
    study: bool = False,
) -> volumes.FinalizeUploadResponse:
    """Sends a file so that nothing that has arrived is sent again, in this process or a later one."""
    address = services.caller.uploads == "address"
    upload = create(services, header, len(data), address=address, study=study)

    def send() -> volumes.FinalizeUploadResponse:
        if upload.state == "open":
            if not (address and upload.send_to_store(data)):
                upload.send(data, progress)
            elif progress:
                progress(len(data), len(data))
        return _finalize(services, header.project_id, upload)

    try:
        return send()
    except IntegrityError:
        upload.refresh()
        return send()  # once more: the service has dropped what arrived damaged


def _finalize(services: Services, project_id: str, upload: Upload) -> volumes.FinalizeUploadResponse:
    request = volumes.FinalizeUploadRequest(project_id=project_id, upload_id=upload.id)
    request.request_id = content_request_id(request)
    timeout_s = services.caller.transfer_timeout_s(upload.size_bytes)
    return services.volumes.FinalizeUpload(request, timeout=timeout_s)


def by_way(caller: Caller, size_bytes: int, stream: Callable[[], Answer], pieces: Callable[[], Answer]) -> Answer:
    """Sends a file the way that the client was told; both ways are the same request.

    `stream` sends it whole, `pieces` in pieces or by an address.
    """
    way = caller.uploads
    if way == "stream" or (way == "auto" and size_bytes < PIECES_FROM_BYTES):
        return caller.repeat(stream)
    if way == "auto":
        try:
            return caller.once(stream)
        except (DependencyUnavailable, CapacityExceeded, DeadlineExceeded) as error:
            if error.reason not in _BROKEN_LINE:
                return caller.repeat(stream)
    try:
        return pieces()
    except Unsupported:  # an older service
        return caller.repeat(stream)
