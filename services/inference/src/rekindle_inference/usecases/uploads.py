"""Uploads in pieces: create, put chunks, query, abort. `finalizing` makes volumes of them."""

from __future__ import annotations

import hashlib
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import uuid4

from rekindle.errors import CapacityExceeded, DependencyUnavailable, InvalidInput, NotFound, RekindleError
from rekindle_servicekit.idempotency import RequestKey
from rekindle_servicekit.json_codec import decode, encode
from rekindle_servicekit.layout import UploadKeys
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.principal import Principal

from rekindle_inference.domain.records import ProjectId, VolumeId
from rekindle_inference.domain.uploads import (
    MAX_CHUNK_BYTES,
    Part,
    RequestIdentity,
    UploadId,
    UploadRecord,
    UploadState,
    check_open,
    is_repeated,
    no_such_upload,
)
from rekindle_inference.state import State, UnitOfWork
from rekindle_inference.usecases.checks import check_project, wrong_field
from rekindle_inference.usecases.volumes import Upload, Volumes, bases_of, check_upload


@dataclass(frozen=True, slots=True, kw_only=True)
class Uploads:
    """What the use cases of uploads work with."""

    state: State
    objects: Objects
    volumes: Volumes
    max_file_bytes: int
    #: Per project.
    max_open: int
    #: Announced by those of all projects together: an id of a project costs nothing, the store's room does.
    max_open_bytes: int
    #: How long nothing may come before what has arrived is removed.
    lifetime: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyHeader:
    """What a client says of a study that it sends."""

    project_id: str
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    upload: UploadRecord
    #: Where the whole file can be sent; empty where there is no such address.
    url: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    project_id: str
    upload_id: str
    offset: int
    data: bytes
    #: As the client computed it; None where it did not.
    crc32: int | None


def create_upload(
    uploads: Uploads,
    request: RequestKey,
    header: Upload | StudyHeader,
    act: RequestKey,
    size_bytes: int,
    *,
    presigned: bool,
) -> Started:
    """Begin an upload, once per request.

    `act` is the identity of an UploadVolume or UploadStudy with the same header: where that has arrived already, the
    upload is finalized from the start. An `act` without a request id stands for no other call. InvalidInput, NotFound
    (image, coarse label), CapacityExceeded (TOO_MANY_UPLOADS, UPLOADS_FULL).
    """
    if isinstance(header, Upload):
        check_upload(header)
    _check_size(size_bytes, uploads.max_file_bytes)
    upload_id = UploadId(str(uuid4()))
    lifetime_s = uploads.lifetime.total_seconds()
    url = uploads.objects.presign_put(UploadKeys(upload_id).whole, lifetime_s) if presigned else None
    with uploads.state.write() as uow:
        known = uow.requests.find(request)
        if known is None:
            upload = _new(uploads, uow, upload_id, header, act, size_bytes)
            upload = replace(upload, presigned=url is not None)
            uow.uploads.add(upload)
            uow.requests.add(request, upload_id.encode())
            return Started(upload=upload, url=url or "" if upload.state is UploadState.OPEN else "")
        upload = _as_of(require_upload(uow, header.project_id, known.decode()), uow)
        left_s = (upload.created_at + uploads.lifetime - uow.now).total_seconds()
    # An address that lasts as long as the first one.
    is_there = upload.presigned and upload.state is UploadState.OPEN and left_s > 0
    url = uploads.objects.presign_put(UploadKeys(upload.upload_id).whole, left_s) if is_there else None
    return Started(upload=upload, url=url or "")


def put_chunk(uploads: Uploads, chunk: Chunk) -> int:
    """Take the next chunk, or one that came before; where the one after it begins.

    InvalidInput, NotFound, IllegalTransition: see `is_repeated` and `check_open`.
    """
    _check_chunk(chunk)
    project_id = check_project(chunk.project_id)
    part = Part(offset=chunk.offset, size_bytes=len(chunk.data), sha256=hashlib.sha256(chunk.data).hexdigest())
    with uploads.state.read() as uow:
        upload = require_upload(uow, project_id, chunk.upload_id)
        check_open(upload)
        if is_repeated(upload, part, uow.uploads.part(upload.upload_id, part.offset)):
            return _after(upload, part)
    # The object first: what the database says has arrived is there.
    key = UploadKeys(upload.upload_id).part(part.offset, part.sha256)
    uploads.objects.put(key, chunk.data)
    try:
        return _note_part(uploads, project_id, upload.upload_id, part)
    except RekindleError as error:
        if not isinstance(error, DependencyUnavailable):
            with suppress(RekindleError):
                uploads.objects.delete(key)
        raise


def query_upload(uploads: Uploads, project_id: str, upload_id: str) -> UploadRecord:
    """What has arrived; also of a file that was sent to the object store. NotFound."""
    with uploads.state.read() as uow:
        upload = _as_of(require_upload(uow, project_id, upload_id), uow)
    if upload.state is UploadState.OPEN and upload.presigned and upload.received_bytes == 0:
        with suppress(NotFound):
            size = uploads.objects.size(UploadKeys(upload.upload_id).whole)
            return replace(upload, received_bytes=min(size, upload.size_bytes))
    return upload


def abort_upload(uploads: Uploads, request: RequestKey, project_id: str, upload_id: str) -> UploadRecord:
    """End an upload and remove what has arrived. IllegalTransition (UPLOAD_ENDED) once it is a volume; NotFound."""
    with uploads.state.write() as uow:
        upload = require_upload(uow, project_id, upload_id)
        if uow.requests.find(request) is None:
            if upload.state is UploadState.FINALIZED:
                check_open(upload)
            uow.uploads.end(upload.upload_id, UploadState.ABORTED)
            uow.requests.add(request, upload.upload_id.encode())
        upload = require_upload(uow, project_id, upload_id)
    remove_objects(uploads.objects, upload.upload_id)
    return upload


def require_upload(uow: UnitOfWork, project_id: str, upload_id: str) -> UploadRecord:
    """NotFound where it does not exist, or belongs to another project."""
    upload = uow.uploads.get(check_project(project_id), UploadId(upload_id))
    if upload is None:
        raise no_such_upload(upload_id)
    return upload


def remove_objects(objects: Objects, upload_id: UploadId) -> None:
    """Everything that has arrived; the sweep does it again where the store is away now."""
    with suppress(DependencyUnavailable):
        for key in list(objects.list(UploadKeys(upload_id).folder)):
            objects.delete(key)


def request_of(upload: UploadRecord) -> RequestKey:
    """The identity under which the file is taken in."""
    act = upload.act
    return RequestKey(
        principal=Principal(issuer=act.issuer, subject=act.subject, display_name=""),
        method=act.method,
        request_id=act.request_id,
        digest=act.digest,
    )


def header_of(upload: UploadRecord) -> Upload:
    """What the client said of the file; not for studies."""
    return decode(Upload, upload.header)


def _new(
    uploads: Uploads,
    uow: UnitOfWork,
    upload_id: UploadId,
    header: Upload | StudyHeader,
    act: RequestKey,
    size_bytes: int,
) -> UploadRecord:
    project_id = check_project(header.project_id)
    # A wrong id is told before any byte is sent.
    if isinstance(header, Upload):
        bases_of(uow, header)
    if not act.request_id:
        act = replace(act, request_id=upload_id)
    done = uow.requests.find(act)
    if done is None:
        _check_room(uploads, uow, project_id, size_bytes)
    return UploadRecord(
        upload_id=upload_id,
        project_id=project_id,
        state=UploadState.OPEN if done is None else UploadState.FINALIZED,
        act=RequestIdentity(
            issuer=act.principal.issuer,
            subject=act.principal.subject,
            method=act.method,
            request_id=act.request_id,
            digest=act.digest,
        ),
        header=encode(header) if done is None else {},
        size_bytes=size_bytes,
        received_bytes=0,
        chunks=0,
        presigned=False,
        created_at=uow.now,
        expires_at=uow.now + uploads.lifetime,
        volume_id=VolumeId(done.decode()) if done is not None and isinstance(header, Upload) else None,
    )


def _as_of(upload: UploadRecord, uow: UnitOfWork) -> UploadRecord:
    """Expired as soon as its time is over, whether or not the sweep has come by."""
    is_over = upload.state is UploadState.OPEN and upload.expires_at <= uow.now
    return replace(upload, state=UploadState.EXPIRED, received_bytes=0) if is_over else upload


def _note_part(uploads: Uploads, project_id: ProjectId, upload_id: UploadId, part: Part) -> int:
    with uploads.state.write() as uow:
        upload = require_upload(uow, project_id, upload_id)
        check_open(upload, uow.now)
        if is_repeated(upload, part, uow.uploads.part(upload_id, part.offset)):
            return _after(upload, part)
        if not uow.uploads.add_part(upload, part, uow.now + uploads.lifetime):
            raise DependencyUnavailable(
                "another chunk of this upload arrived at this moment: try again",
                reason="CONCURRENT_WRITE",
                retry_after_s=0.1,
            )
    return part.offset + part.size_bytes


def _after(upload: UploadRecord, part: Part) -> int:
    """Where to go on; the part may have been noted by somebody else just after the upload was read."""
    return max(upload.received_bytes, part.offset + part.size_bytes)


def _check_size(size_bytes: int, most: int) -> None:
    if size_bytes < 1:
        raise wrong_field("size_bytes", "must be the size of the file, at least 1")
    if size_bytes > most:
        raise InvalidInput(f"the file is larger than {most} bytes", reason="TOO_LARGE")


def _check_room(uploads: Uploads, uow: UnitOfWork, project_id: ProjectId, size_bytes: int) -> None:
    if uow.uploads.count_open(project_id) >= uploads.max_open:
        raise CapacityExceeded(
            f"the project has {uploads.max_open} open uploads: finalize or abort some, or wait until they expire",
            reason="TOO_MANY_UPLOADS",
            retry_after_s=60.0,
        )
    if uow.uploads.open_bytes() + size_bytes > uploads.max_open_bytes:
        raise CapacityExceeded(
            f"open uploads would announce more than {uploads.max_open_bytes} bytes together: finalize or abort some, "
            "or wait until they expire",
            reason="UPLOADS_FULL",
            retry_after_s=60.0,
        )


def _check_chunk(chunk: Chunk) -> None:
    if chunk.offset < 0:
        raise wrong_field("offset", "must not be negative")
    if not chunk.data:
        raise wrong_field("data", "must not be empty")
    if len(chunk.data) > MAX_CHUNK_BYTES:
        raise InvalidInput(f"the chunk is larger than {MAX_CHUNK_BYTES} bytes", reason="CHUNK_TOO_LARGE")
    if chunk.crc32 is not None and zlib.crc32(chunk.data) != chunk.crc32:
        raise InvalidInput("the chunk was damaged on its way (crc32): send it again", reason="CHUNK_DAMAGED")
