"""Bytes on their way into and out of a bucket: hashed as they pass, and given a limit of time."""

from __future__ import annotations

import hashlib
import io
import time
from typing import Any, BinaryIO, Final

import urllib3
from minio import Minio
from rekindle.errors import IntegrityError

from rekindle_servicekit.s3_errors import converted_errors, unavailable

#: Times that one download is taken up again where the line broke.
_RESUMES: Final = 3


class Deadline:
    """A moment of the monotonic clock."""

    def __init__(self, moment_s: float) -> None:
        self._moment_s = moment_s

    def check(self) -> None:
        """DependencyUnavailable once it has passed."""
        if time.monotonic() > self._moment_s:
            raise unavailable("takes too long for an object", retry_after_s=5.0)


class HashingReader:
    """What an upload reads from. Its last bytes are given only if all of them have the digest that was said.

    IntegrityError otherwise (a file that changed meanwhile), before the upload is completed.
    """

    def __init__(self, source: BinaryIO, digest: str, deadline: Deadline, *, part_bytes: int) -> None:
        self._source = source
        self._part_bytes = part_bytes
        #: MD5 of each part, and bytes of the last one.
        self._parts = [_md5()]
        self._in_part = 0
        self._digest = digest
        self._deadline = deadline
        self._hash = hashlib.sha256()
        self._size_left = _size_from_here(source)

    def read(self, size: int = -1) -> bytes:
        self._deadline.check()
        data = self._source.read(size)
        self._hash.update(data)
        self._note_parts(memoryview(data))
        self._size_left -= len(data)
        is_at_its_end = self._size_left <= 0 or (size != 0 and not data)
        if is_at_its_end and self._hash.hexdigest() != self._digest:
            raise IntegrityError("a file changed while it was being stored", reason="FILE_CHANGED")
        return data

    def etag(self) -> str:
        """What a server that tags by MD5 calls the object."""
        if len(self._parts) == 1:
            return self._parts[0].hexdigest()
        return f"{_md5(b''.join(part.digest() for part in self._parts)).hexdigest()}-{len(self._parts)}"

    def _note_parts(self, data: memoryview) -> None:
        while data:
            if self._in_part == self._part_bytes:
                self._parts.append(_md5())
                self._in_part = 0
            piece = data[: self._part_bytes - self._in_part]
            self._parts[-1].update(piece)
            self._in_part += len(piece)
            data = data[len(piece) :]


class Download(io.RawIOBase):
    """A readable stream of an object, or of at most `length` of its bytes from `offset`.

    Where the line breaks, the download continues from there. A whole object is checked at its end against the digest
    that it carries: IntegrityError. NotFound, OutsideObject and DependencyUnavailable already when it is made.
    """

    def __init__(
        self,
        client: Minio,
        bucket: str,
        key: str,
        deadline: Deadline,
        *,
        offset: int = 0,
        length: int | None = None,
        digest_header: str | None = None,
    ) -> None:
        super().__init__()
        self._client, self._bucket, self._key, self._deadline = client, bucket, key, deadline
        self._position, self._resumes_left = offset, _RESUMES
        self._etag = ""
        self._response = self._request(length)
        self._end = offset + self._told_length()
        self._etag = self._response.headers.get("ETag", "")
        self._digest = None if digest_header is None else self._response.headers.get(digest_header)
        self._hash = hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        self._deadline.check()
        wanted = min(len(buffer), self._end - self._position)
        if wanted <= 0:
            return 0
        data = self._next(wanted)
        buffer[: len(data)] = data
        self._position += len(data)
        if self._digest is not None:
            self._hash.update(data)
            if self._position >= self._end and self._hash.hexdigest() != self._digest:
                raise _corrupt(self._key)
        return len(data)

    def close(self) -> None:
        if not self.closed:
            # Unread bytes would be taken for the answer to the next request.
            response: urllib3.BaseHTTPResponse | None = getattr(self, "_response", None)
            if response is not None:
                if self._position < self._end:
                    response.close()
                response.release_conn()
        super().close()

    def _told_length(self) -> int:
        """Without it an object's end looks like a cut line."""
        length = self._response.headers.get("Content-Length", "")
        if not length.isdecimal():
            self._response.close()
            self._response.release_conn()
            raise unavailable("does not say how long an object is: look for a proxy that changes its answers")
        return int(length)

    def _next(self, wanted: int) -> bytes:
        while True:
            with converted_errors(self._key):
                try:
                    data = self._response.read(wanted)
                    if data:
                        return data
                    raise urllib3.exceptions.ProtocolError("the line ended before the object did")
                except (urllib3.exceptions.HTTPError, OSError):
                    if not self._resumes_left:
                        raise
                    self._resumes_left -= 1
            self._response.close()
            self._response.release_conn()
            self._response = self._request(self._end - self._position)

    def _request(self, length: int | None) -> urllib3.BaseHTTPResponse:
        """From the position on; of the same object as before, or an error."""
        self._deadline.check()
        same: Any = {"If-Match": self._etag} if self._etag else None
        with converted_errors(self._key):
            return self._client.get_object(
                self._bucket, self._key, offset=self._position, length=length or 0, request_headers=same
            )


def _md5(data: bytes = b"") -> Any:
    return hashlib.md5(data, usedforsecurity=False)  # the servers' check of transport


def _size_from_here(source: BinaryIO) -> int:
    here = source.tell()
    size = source.seek(0, io.SEEK_END) - here
    source.seek(here)
    return size


def _corrupt(key: str) -> IntegrityError:
    return IntegrityError(
        f"the bytes of object {key!r} are not those that were stored: restore it from a backup",
        reason="OBJECT_CORRUPT",
        metadata={"key": key},
    )
