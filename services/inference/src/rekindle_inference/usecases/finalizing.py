"""Volumes from uploads in pieces: put together, checked, and taken in as a streamed file is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rekindle.errors import CapacityExceeded, IntegrityError, InvalidInput, NotFound
from rekindle_servicekit.idempotency import RequestKey
from rekindle_servicekit.layout import UploadKeys
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.domain.uploads import UploadRecord, UploadState, check_complete, check_open
from rekindle_inference.state import UnitOfWork
from rekindle_inference.usecases.checks import require_volume
from rekindle_inference.usecases.studies import SeriesOutcome, upload_study
from rekindle_inference.usecases.uploads import (
    Uploads,
    header_of,
    remove_objects,
    request_of,
    require_upload,
)
from rekindle_inference.usecases.volumes import Uploaded, Volumes, upload_volume

_READ_BYTES = 1024 * 1024
#: Refusals that may be due to how busy the service is: the upload stays, to be finalized again.
_PASSING_REASONS = frozenset({"TOO_LARGE"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Finalized:
    """What an upload has become: a volume, or the series of a study."""

    uploaded: Uploaded | None = None
    series: tuple[SeriesOutcome, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Gathered:
    """A file with the size and digest that were announced."""

    upload: UploadRecord
    file: Path


def gather_upload(
    uploads: Uploads, request: RequestKey, project_id: str, upload_id: str, file: Path, cancellation: Cancellation
) -> Gathered | Finalized:
    """Put the file together at `file`; or what it has become before.

    IllegalTransition (INCOMPLETE, UPLOAD_ENDED), IntegrityError (DIGEST_MISMATCH, SIZE_MISMATCH, OBJECT_MISSING,
    OBJECT_CORRUPT: what has arrived is dropped and the upload begins again at 0), NotFound.
    """
    with uploads.state.write() as uow:
        upload = require_upload(uow, project_id, upload_id)
        uow.requests.find(request)  # whether its id was another request's
        if upload.state is UploadState.FINALIZED and not upload.act.is_study:
            return _uploaded(uow, upload)
        if upload.state is UploadState.FINALIZED:
            # Answered by its act, without the file.
            return Gathered(upload=upload, file=file)
        check_open(upload, uow.now)
        # What has arrived must not expire while it is read.
        uow.uploads.renew(upload.upload_id, uow.now + uploads.lifetime)
        stored = UploadKeys(upload.upload_id)
        keys = [stored.part(part.offset, part.sha256) for part in uow.uploads.parts(upload.upload_id)]
    if not keys and upload.presigned:
        keys = [_whole(uploads, upload)]
    else:
        check_complete(upload)
    try:
        sha256 = _write(_streams(uploads, keys, cancellation), file)
    except IntegrityError:
        _start_again(uploads, upload)
        raise
    if sha256 != upload.header["sha256"]:
        _start_again(uploads, upload)
        raise IntegrityError(
            "the bytes that arrived do not have the sha256 of the header: send them again, from 0 on",
            reason="DIGEST_MISMATCH",
            metadata={"expected": upload.header["sha256"], "actual": sha256},
        )
    return Gathered(upload=upload, file=file)


def complete_upload(uploads: Uploads, request: RequestKey, gathered: Gathered, cancellation: Cancellation) -> Finalized:
    """Take the file in as a stream of it is, and end the upload. Errors: those of `upload_volume`, `upload_study`."""
    upload = gathered.upload
    try:
        finalized = _take_in(uploads.volumes, gathered, cancellation)
    except InvalidInput as error:
        if error.reason not in _PASSING_REASONS:
            with uploads.state.write() as uow:
                uow.uploads.end(upload.upload_id, UploadState.ABORTED, refusal=(error.reason, error.message))
            remove_objects(uploads.objects, upload.upload_id)
        raise
    with uploads.state.write() as uow:
        volume_id = None if finalized.uploaded is None else finalized.uploaded.volume.volume_id
        uow.uploads.end(upload.upload_id, UploadState.FINALIZED, volume_id=volume_id)
        if uow.requests.find(request) is None:
            uow.requests.add(request, upload.upload_id.encode())
    remove_objects(uploads.objects, upload.upload_id)
    return finalized


def _take_in(volumes: Volumes, gathered: Gathered, cancellation: Cancellation) -> Finalized:
    upload, request = gathered.upload, request_of(gathered.upload)
    if upload.act.is_study:
        sha256 = upload.header.get("sha256", "")
        return Finalized(series=upload_study(volumes, request, upload.project_id, sha256, gathered.file, cancellation))
    return Finalized(uploaded=upload_volume(volumes, request, header_of(upload), gathered.file, cancellation))


def _uploaded(uow: UnitOfWork, upload: UploadRecord) -> Finalized:
    volume = require_volume(uow, upload.project_id, upload.volume_id or "", field="upload_id")
    receipt = uow.receipts.of_mask(upload.project_id, volume.volume_id)
    return Finalized(uploaded=Uploaded(volume=volume, receipt=receipt))


def _whole(uploads: Uploads, upload: UploadRecord) -> str:
    """The key of the file that was sent to the object store's own address."""
    key = UploadKeys(upload.upload_id).whole
    try:
        size = uploads.objects.size(key)
    except NotFound:
        check_complete(upload)
        raise
    if size != upload.size_bytes:
        _start_again(uploads, upload)
        raise IntegrityError(
            f"{size} bytes arrived instead of the {upload.size_bytes} that were announced: send the file again",
            reason="SIZE_MISMATCH",
        )
    return key


def _start_again(uploads: Uploads, upload: UploadRecord) -> None:
    with uploads.state.write() as uow:
        uow.uploads.restart(upload.upload_id)
    remove_objects(uploads.objects, upload.upload_id)


def _streams(uploads: Uploads, keys: list[str], cancellation: Cancellation) -> Iterator[BinaryIO]:
    for key in keys:
        cancellation.raise_if_set()
        try:
            yield uploads.objects.open(key)
        except NotFound as error:
            raise IntegrityError(
                "a part of the upload is missing from the object store: send the bytes again, from 0 on",
                reason="OBJECT_MISSING",
            ) from error


def _write(streams: Iterator[BinaryIO], file: Path) -> str:
    """The SHA-256 of what was written."""
    digest = hashlib.sha256()
    with file.open("wb") as target:
        for stream in streams:
            with closing(stream):
                while data := stream.read(_READ_BYTES):
                    digest.update(data)
                    _append(target, data)
    return digest.hexdigest()


def _append(target: BinaryIO, data: bytes) -> None:
    try:
        target.write(data)
    except OSError as error:
        raise CapacityExceeded(
            "there is no room for the file: try again later", reason="DISK_FULL", retry_after_s=30.0
        ) from error
