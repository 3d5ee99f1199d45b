"""What an S3 server, or its absence, means to the caller."""

from __future__ import annotations

import ssl
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final

import urllib3
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from rekindle.errors import DependencyUnavailable, RekindleError

from rekindle_servicekit.objects import not_found, other_bytes

_NOT_THERE: Final = {"NoSuchKey", "NoSuchVersion", "ResourceNotFound", "NoSuchObject"}
_FULL: Final = {
    "XMinioStorageFull",
    "StorageFull",
    "InsufficientStorage",
    "QuotaExceeded",
    "XMinioAdminBucketQuotaExceeded",
}
_REFUSED: Final = {
    "AccessDenied",
    "AllAccessDisabled",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "InvalidTokenId",
    "ExpiredToken",
    "RequestTimeTooSkewed",
}
#: A part of a key is an object already, or the other way round; some servers keep keys as paths.
_IN_THE_WAY: Final = {
    "XMinioParentIsObject",
    "XMinioObjectExistsAsDirectory",
    "ExistingObjectIsDirectory",
    "ExistingObjectIsFile",
}
_DAMAGED: Final = {"BadDigest", "XAmzContentSHA256Mismatch", "IncompleteBody", "InvalidDigest"}


class OutsideObject(Exception):
    """A range that begins behind the object's last byte."""


def is_not_found(error: BaseException) -> bool:
    """Whether the server says that this key has no object."""
    # A key that runs on behind an object is none either.
    return isinstance(error, S3Error) and error.code in _NOT_THERE | _IN_THE_WAY


@contextmanager
def converted_errors(key: str) -> Generator[None]:
    """The client's and the line's errors as ours: NotFound, AlreadyExists, DependencyUnavailable, OutsideObject."""
    try:
        yield
    except (RekindleError, OutsideObject):
        raise
    except S3Error as error:
        raise _meaning(error, key) from error
    except (InvalidResponseError, ServerError) as error:
        raise unavailable("does not answer as it should") from error
    except urllib3.exceptions.HTTPError as error:
        raise unavailable(_what_broke(error)) from error
    except (MinioException, OSError) as error:
        raise unavailable("cannot be reached") from error


def _meaning(error: S3Error, key: str) -> Exception:
    code = error.code or ""
    if code == "InvalidRange":
        return OutsideObject()
    if code in _NOT_THERE:
        return not_found(key)
    if code in _IN_THE_WAY:
        return other_bytes(key)
    # MinIO passes on what its disk says.
    if code in _FULL or "no space left" in (error.message or "").lower():
        return unavailable("is full: make room in it", reason="OBJECT_STORE_FULL", retry_after_s=30.0)
    if code == "NoSuchBucket":
        return unavailable("has no such bucket: create it", reason="OBJECT_STORE_REFUSES", retry_after_s=30.0)
    if code in _REFUSED:
        why = f"refuses this service's credentials or what it does with them ({code}): look at keys and policy"
        return unavailable(why, reason="OBJECT_STORE_REFUSES", retry_after_s=30.0)
    if code in _DAMAGED:
        return unavailable("got other bytes than were sent")
    return unavailable(f"cannot do it now ({code})")


def unavailable(
    what: str, *, reason: str = "OBJECT_STORE_UNAVAILABLE", retry_after_s: float = 1.0
) -> DependencyUnavailable:
    """The error whose message says what the object store does, or does not do."""
    return DependencyUnavailable(f"the object store {what}; try again", reason=reason, retry_after_s=retry_after_s)


def _what_broke(error: BaseException) -> str:
    reason = getattr(error, "reason", None)
    if isinstance(error, urllib3.exceptions.SSLError) or isinstance(
        reason, (urllib3.exceptions.SSLError, ssl.SSLError)
    ):
        return "has a certificate that is not trusted: set the file of its certificate authority"
    return "cannot be reached"
