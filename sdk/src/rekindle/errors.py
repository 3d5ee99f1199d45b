"""The errors that Rekindle's services raise and its clients catch. Free of grpc, for domain code to use."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import ClassVar

#: Services name what they keep by UUIDs.
_SERVER_MADE = re.compile(r"[0-9a-f]{8}-?(?:[0-9a-f]{4}-?){3}[0-9a-f]{12}")


@dataclass(frozen=True, slots=True)
class FieldViolation:
    """One field of a request that is wrong, and what is wrong with it."""

    #: Path of the field in the request, e.g. ``organs[1].label_value``.
    field: str
    description: str


class RekindleError(Exception):
    """Base of every error with a meaning to the caller.

    The message names what is wrong and what to do about it, and never holds patient data.
    """

    #: What `reason` is when the one who raises gives nothing more specific.
    default_reason: ClassVar[str] = "INTERNAL_ERROR"

    def __init__(
        self,
        message: str,
        *,
        reason: str | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: Iterable[FieldViolation] = (),
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        #: UPPER_SNAKE, stable, for programs to decide on.
        self.reason = reason or self.default_reason
        self.metadata: dict[str, str] = dict(metadata or {})
        self.violations: tuple[FieldViolation, ...] = tuple(violations)
        #: How long to wait before trying again; None where the server gave no hint.
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.message!r}, reason={self.reason!r})"


def quoted_id(text: str) -> str:
    """An id that a caller sent, for an error text: as it is where a service made it, else not repeated.

    By mistake it could be an accession number or a name, and error texts end up in logs.
    """
    return repr(text) if _SERVER_MADE.fullmatch(text) else "of that id (it is none that a service made)"


class InvalidInput(RekindleError):
    """The request is wrong whatever the state of the service; `violations` names the fields."""

    default_reason = "INVALID_INPUT"


class NotFound(RekindleError):
    """What the request names does not exist, or not in the project that it names."""

    default_reason = "NOT_FOUND"


class AlreadyExists(RekindleError):
    """Something else already has this id, key or name."""

    default_reason = "ALREADY_EXISTS"


class IllegalTransition(RekindleError):
    """The state does not allow this step."""

    default_reason = "ILLEGAL_TRANSITION"


class ModelNotReady(RekindleError):
    """No model version serves yet where one is needed."""

    default_reason = "MODEL_NOT_READY"


class LeaseLost(RekindleError):
    """The lease has expired, was released, or its fencing token is stale."""

    default_reason = "LEASE_LOST"


class VersionConflict(RekindleError):
    """Somebody else changed it first: read again and decide again."""

    default_reason = "VERSION_CONFLICT"


class CapacityExceeded(RekindleError):
    """A limit or a queue is full; see `retry_after_s`."""

    default_reason = "CAPACITY_EXCEEDED"


class DependencyUnavailable(RekindleError):
    """A service or a store that is needed cannot be reached now."""

    default_reason = "DEPENDENCY_UNAVAILABLE"


class IntegrityError(RekindleError):
    """Bytes do not match their digest."""

    default_reason = "INTEGRITY_ERROR"


class Unauthenticated(RekindleError):
    """Nobody knows who calls."""

    default_reason = "UNAUTHENTICATED"


class PermissionDenied(RekindleError):
    """The caller is known and may not do this."""

    default_reason = "PERMISSION_DENIED"


class Cancelled(RekindleError):
    """The caller gave up, or the work was called off."""

    default_reason = "CANCELLED"


class DeadlineExceeded(RekindleError):
    """The time that the caller allowed is over."""

    default_reason = "DEADLINE_EXCEEDED"


class Unsupported(RekindleError):
    """The server does not know the call: it is older than the caller, or another server."""

    default_reason = "UNIMPLEMENTED"


class InternalError(RekindleError):
    """A fault of the service; `metadata["incident_id"]` finds it in the service's log."""

    default_reason = "INTERNAL_ERROR"
