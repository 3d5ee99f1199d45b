"""Files in gRPC streams: a header, then chunks; in both directions."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rekindle.errors import CapacityExceeded, IntegrityError, InvalidInput
from rekindle.vocabulary import is_sha256
from rekindle_servicekit.workers import Workers

from rekindle_inference.usecases.checks import wrong_field

CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    path: Path
    sha256: str


async def receive_header(requests: AsyncIterator[Any]) -> Any:
    """The header of a stream of `oneof part { header, chunk }`; InvalidInput (HEADER_MISSING)."""
    try:
        first = await anext(aiter(requests))
    except StopAsyncIteration:
        raise _no_header("the stream is empty") from None
    if first.WhichOneof("part") != "header":
        raise _no_header("a chunk came before the header")
    return first.header


async def receive_file(requests: AsyncIterator[Any], path: Path, *, max_bytes: int, workers: Workers) -> Received:
    """Write the chunks that follow to `path`, counting and hashing them.

    InvalidInput: SECOND_HEADER, TOO_LARGE, EMPTY_FILE. CapacityExceeded where the disk is full.
    """
    digest, total = hashlib.sha256(), 0
    with path.open("wb") as file:
        async for message in requests:
            if message.WhichOneof("part") != "chunk":
                raise InvalidInput("only chunks may follow the header", reason="SECOND_HEADER")
            total += len(message.chunk)
            if total > max_bytes:
                raise InvalidInput(f"the file is larger than {max_bytes} bytes", reason="TOO_LARGE")
            await workers.run_blocking(_append, file, digest, message.chunk)
    if total == 0:
        raise InvalidInput("no bytes followed the header", reason="EMPTY_FILE")
    return Received(path, digest.hexdigest())


def check_sha256(sha256: str) -> None:
    """InvalidInput unless the client has said which digest its file has."""
    if not is_sha256(sha256):
        raise wrong_field("sha256", "must be the file's SHA-256 in lower-case hex")


def check_arrived(received: Received, announced: str) -> None:
    """IntegrityError (DIGEST_MISMATCH) where other bytes have come than the header announced."""
    if received.sha256 != announced:
        raise IntegrityError(
            "the bytes that arrived do not have the sha256 of the header: send the file again",
            reason="DIGEST_MISMATCH",
            metadata={"expected": announced, "actual": received.sha256},
        )


async def chunks_of(path: Path, workers: Workers) -> AsyncGenerator[bytes]:
    """The bytes of a file in pieces of 1 MiB."""
    with path.open("rb") as file:
        while chunk := await workers.run_blocking(file.read, CHUNK_BYTES):
            yield chunk


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _append(file: BinaryIO, digest: Any, chunk: bytes) -> None:
    digest.update(chunk)
    try:
        file.write(chunk)
    except OSError as error:
        raise CapacityExceeded(
            "there is no room for the file: try again later", reason="DISK_FULL", retry_after_s=30.0
        ) from error


def _no_header(what: str) -> InvalidInput:
    return InvalidInput(f"{what}: send the header first, then the chunks", reason="HEADER_MISSING")
