"""Uploads in pieces: what is kept of each, and which chunk may come next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NewType

from rekindle.errors import IllegalTransition, InvalidInput, NotFound, RekindleError, quoted_id

from rekindle_inference.domain.records import ProjectId, VolumeId

UploadId = NewType("UploadId", str)

#: More would make the database the larger store of the two.
MAX_CHUNKS = 65_536
#: Below the limit of a message, with room for the rest of it.
MAX_CHUNK_BYTES = 2 * 1024 * 1024


class UploadState(StrEnum):
    OPEN = "open"
    FINALIZED = "finalized"
    ABORTED = "aborted"
    EXPIRED = "expired"


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestIdentity:
    """Under which identity the file is taken in, so that it is taken in once."""

    issuer: str
    subject: str
    method: str
    request_id: str
    digest: str

    @property
    def is_study(self) -> bool:
        return self.method == "UploadStudy"


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRecord:
    """A file on its way in."""

    upload_id: UploadId
    project_id: ProjectId
    state: UploadState
    act: RequestIdentity
    #: What the client said of the file; empty once the upload has ended.
    header: Mapping[str, Any]
    size_bytes: int
    received_bytes: int
    chunks: int
    #: Whether the client was given an address of the object store.
    presigned: bool
    created_at: datetime
    expires_at: datetime
    #: What it has become; None for a study, whose volumes are answered by the act.
    volume_id: VolumeId | None = None
    #: Why its file was refused: reason and message.
    refusal: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A chunk that has arrived."""

    offset: int
    size_bytes: int
    sha256: str


def check_open(upload: UploadRecord, now: datetime | None = None) -> None:
    """InvalidInput where its file was refused, IllegalTransition (UPLOAD_ENDED) where it takes nothing any more."""
    if upload.refusal is not None:
        reason, message = upload.refusal
        raise InvalidInput(message, reason=reason)
    state = upload.state
    if state is UploadState.OPEN and now is not None and upload.expires_at <= now:
        state = UploadState.EXPIRED
    if state is not UploadState.OPEN:
        raise IllegalTransition(f"the upload is {state.value}: create a new one", reason="UPLOAD_ENDED")


def is_repeated(upload: UploadRecord, chunk: Part, known: Part | None) -> bool:
    """Whether the chunk has arrived before; False where it is the next one.

    `known` is the part at its offset. IllegalTransition: CHUNK_DIFFERS, WRONG_OFFSET. InvalidInput: BEYOND_SIZE,
    TOO_MANY_CHUNKS.
    """
    if known is not None:
        if known == chunk:
            return True
        raise _out_of_step(
            upload, "CHUNK_DIFFERS", f"another chunk has arrived at {chunk.offset}: abort the upload, or go on"
        )
    if chunk.offset != upload.received_bytes:
        raise _out_of_step(upload, "WRONG_OFFSET", f"the chunk begins at {chunk.offset}: go on")
    if chunk.offset + chunk.size_bytes > upload.size_bytes:
        raise InvalidInput(
            f"the chunk ends beyond the {upload.size_bytes} bytes that were announced", reason="BEYOND_SIZE"
        )
    if upload.chunks >= MAX_CHUNKS:
        raise InvalidInput(
            f"the upload has {MAX_CHUNKS} chunks already: begin again with larger ones", reason="TOO_MANY_CHUNKS"
        )
    return False


def check_complete(upload: UploadRecord) -> None:
    """IllegalTransition (INCOMPLETE) where bytes are missing."""
    if upload.received_bytes != upload.size_bytes:
        raise _out_of_step(upload, "INCOMPLETE", f"the file has {upload.size_bytes} bytes: go on")


def no_such_upload(upload_id: str) -> NotFound:
    return NotFound(f"there is no upload {quoted_id(upload_id)} in this project", reason="UPLOAD_NOT_FOUND")


def _out_of_step(upload: UploadRecord, reason: str, what: str) -> RekindleError:
    return IllegalTransition(
        f"{what} at {upload.received_bytes}, which is where what has arrived ends",
        reason=reason,
        metadata={"expected_offset": str(upload.received_bytes)},
    )
