"""Objects in a bucket of MinIO or any other S3: nothing beyond plain S3 is asked of the server."""

from __future__ import annotations

import hashlib
import io
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO, Final
from urllib.parse import urlsplit

import urllib3
from minio import Minio
from minio.datatypes import Object
from minio.sse import Sse, SseKMS, SseS3
from rekindle.errors import InvalidInput

from rekindle_servicekit.objects import not_found, other_bytes, validate_key, validate_prefix, validate_range
from rekindle_servicekit.s3_errors import OutsideObject, converted_errors, is_not_found, unavailable
from rekindle_servicekit.s3_streams import Deadline, Download, HashingReader

#: Name of the metadata that holds the SHA-256 of an object's bytes.
_DIGEST: Final = "sha256"
_LOCKS: Final = 64
#: Servers refuse addresses that live longer.
_MAX_ADDRESS_S: Final = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class S3Options:
    """Where the bucket is, who asks, and how long to wait."""

    #: ``https://host:port``; a path is not allowed.
    endpoint: str
    bucket: str
    access_key: str
    secret_key: str
    region: str = "us-east-1"
    #: Certificates that are trusted instead of the public ones; None for the public ones.
    ca_file: Path | None = None
    #: Encryption by the server: empty for the bucket's default, ``s3``, or ``kms:`` and the key's id.
    encryption: str = ""
    #: The endpoint as clients reach it, for the addresses that they are given; empty for `endpoint`.
    public_endpoint: str = ""
    connect_timeout_s: float = 5.0
    #: Longest silence of the server.
    read_timeout_s: float = 30.0
    #: Longest time for the bytes of one object to come or go.
    total_timeout_s: float = 600.0
    #: Memory that a transfer takes, about twice.
    part_bytes: int = 16 * 1024 * 1024

    def __repr__(self) -> str:
        return f"S3Options(endpoint={self.endpoint!r}, bucket={self.bucket!r})"


class S3Objects:
    """A whole bucket.

    What went in is compared with what the server says it has, by the MD5 of its parts or by reading it back where
    the server tells none. The object keeps the SHA-256 of its bytes, against which what comes out is checked. One
    that came from elsewhere, by a presigned address or by hand, has none and is given as it is.

    That no object is ever replaced holds among the writers of this process. Plain S3 cannot tell two processes
    that write other bytes under one new key at the same moment apart: one of them may be told too late, or not.
    So keys name their bytes by digest, or belong to one writer.
    """

    def __init__(self, options: S3Options) -> None:
        self._options = options
        self._bucket = options.bucket
        self._encryption = _encryption(options.encryption)
        self._client = _client(options, options.endpoint)
        self._public = _client(options, options.public_endpoint or options.endpoint)
        self._locks = [threading.Lock() for _ in range(_LOCKS)]

    def put(self, key: str, data: bytes) -> None:
        digest = hashlib.sha256(data).hexdigest()
        self._put(key, io.BytesIO(data), len(data), digest)

    def put_file(self, key: str, path: Path) -> None:
        validate_key(key)
        with path.open("rb") as source:
            digest = hashlib.file_digest(source, "sha256").hexdigest()
            size = source.tell()
            source.seek(0)
            self._put(key, source, size, digest)

    def get(self, key: str) -> bytes:
        with self.open(key) as stream:
            return stream.read()

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        validate_key(key)
        validate_range(offset, length)
        if not length:
            self.size(key)
            return b""
        try:
            download = Download(self._client, self._bucket, key, self._deadline(), offset=offset, length=length)
        except OutsideObject:
            return b""
        with io.BufferedReader(download) as stream:
            return stream.read()

    def open(self, key: str) -> BinaryIO:
        validate_key(key)
        # The server is asked at once, so that a key that is not there is told here and not on reading.
        return io.BufferedReader(
            Download(self._client, self._bucket, key, self._deadline(), digest_header=f"x-amz-meta-{_DIGEST}"),
            buffer_size=1024 * 1024,
        )

    def exists(self, key: str) -> bool:
        return self._known(key) is not None

    def size(self, key: str) -> int:
        known = self._known(key)
        if known is None:
            raise not_found(key)
        return known.size or 0

    def modified_at(self, key: str) -> datetime:
        known = self._known(key)
        if known is None or known.last_modified is None:
            raise not_found(key)
        return known.last_modified

    def list(self, prefix: str = "") -> Iterator[str]:
        validate_prefix(prefix)
        with converted_errors(prefix):
            found = self._client.list_objects(self._bucket, prefix=prefix or None, recursive=True)
            # Some servers keep keys as paths and list them folder by folder.
            return iter(sorted(each.object_name for each in found if each.object_name and not each.is_dir))

    def delete(self, key: str) -> None:
        validate_key(key)
        with converted_errors(key):
            self._client.remove_object(self._bucket, key)
            if self._is_versioned():
                # What is deleted is to be gone: a version that stays is an unknown copy.
                for version in self._client.list_objects(self._bucket, prefix=key, include_version=True):
                    if version.object_name == key:
                        self._client.remove_object(self._bucket, key, version_id=version.version_id)

    def presign_put(self, key: str, expires_s: float) -> str | None:
        validate_key(key)
        if self._encryption is not None:
            return None  # a plain PUT would store it unencrypted
        return self._public.presigned_put_object(self._bucket, key, expires=_lifetime(expires_s))

    def presign_get(self, key: str, expires_s: float) -> str | None:
        validate_key(key)
        return self._public.presigned_get_object(self._bucket, key, expires=_lifetime(expires_s))

    def _put(self, key: str, source: BinaryIO, size: int, digest: str) -> None:
        with self._locks[hash(validate_key(key)) % _LOCKS]:
            if self._is_there(key, size, digest):
                return
            reader = HashingReader(source, digest, self._deadline(), part_bytes=self._options.part_bytes)
            with converted_errors(key):
                stored = self._client.put_object(
                    self._bucket,
                    key,
                    reader,  # pyright: ignore[reportArgumentType]: only read() is called
                    size,
                    metadata={_DIGEST: digest},
                    sse=self._encryption,
                    part_size=self._options.part_bytes,
                    num_parallel_uploads=1,
                )
            self._confirm(key, size, digest, stored.etag == reader.etag())

    def _confirm(self, key: str, size: int, digest: str, is_known_right: bool) -> None:
        """Return once the bytes that were sent are known to be those that are stored."""
        if not self._is_there(key, size, digest):
            raise unavailable("took an object and does not have it")
        # The tag of an object is the MD5 of its bytes, except with encryption and on some servers.
        if not is_known_right and self._read_digest(key) != digest:
            self.delete(key)
            raise unavailable("got other bytes than were sent")

    def _is_there(self, key: str, size: int, digest: str) -> bool:
        """Whether these bytes are stored; AlreadyExists where others are."""
        known = self._known(key)
        if known is None:
            return False
        stored = _digest_of(known) or self._read_digest(key)
        if (known.size, stored) != (size, digest):
            raise other_bytes(key)
        return True

    def _known(self, key: str) -> Object | None:
        validate_key(key)
        with converted_errors(key):
            try:
                return self._client.stat_object(self._bucket, key)
            except Exception as error:
                if is_not_found(error):
                    return None
                raise

    def _read_digest(self, key: str) -> str:
        with io.BufferedReader(Download(self._client, self._bucket, key, self._deadline())) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()

    def _is_versioned(self) -> bool:
        return self._client.get_bucket_versioning(self._bucket).status in ("Enabled", "Suspended")

    def _deadline(self) -> Deadline:
        return Deadline(time.monotonic() + self._options.total_timeout_s)


def _client(options: S3Options, endpoint: str) -> Minio:
    address = urlsplit(endpoint)
    if address.scheme not in ("http", "https") or not address.netloc or address.path.strip("/"):
        raise InvalidInput(
            f"object store endpoint {endpoint!r} cannot be used: give https://host:port", reason="INVALID_OBJECT_STORE"
        )
    retries = urllib3.Retry(
        total=2,
        backoff_factor=0.2,
        status_forcelist=[500, 502, 503, 504],
        raise_on_status=False,
        respect_retry_after_header=False,
        redirect=0,
    )
    http: dict[str, Any] = {"ca_certs": str(options.ca_file)} if options.ca_file else {}
    if address.scheme == "https" and not options.ca_file:
        http = {"cert_reqs": "CERT_REQUIRED"}
    pool = urllib3.PoolManager(
        maxsize=32,
        timeout=urllib3.Timeout(connect=options.connect_timeout_s, read=options.read_timeout_s),
        retries=retries,
        **http,
    )
    try:
        return Minio(
            address.netloc,
            options.access_key,
            options.secret_key,
            secure=address.scheme == "https",
            # Known, it is not asked for, which needs a permission of its own.
            region=options.region,
            http_client=pool,
        )
    except ValueError as error:
        raise InvalidInput(f"object store cannot be used: {error}", reason="INVALID_OBJECT_STORE") from None


def _encryption(kind: str) -> Sse | None:
    if not kind:
        return None
    if kind == "s3":
        return SseS3()
    if kind.startswith("kms:") and len(kind) > len("kms:"):
        return SseKMS(kind.removeprefix("kms:"), {})
    raise InvalidInput(
        f"object encryption {kind!r} is not known: use s3, or kms: and the id of a key", reason="INVALID_OBJECT_STORE"
    )


def _digest_of(known: Object) -> str | None:
    for name, value in (known.metadata or {}).items():
        if name.lower() == f"x-amz-meta-{_DIGEST}":
            return str(value)
    return None


def _lifetime(expires_s: float) -> timedelta:
    return timedelta(seconds=min(max(1.0, expires_s), _MAX_ADDRESS_S))
