"""Errors to gRPC statuses and back: the one table, used by the services' interceptor and by the client."""

from __future__ import annotations

from typing import Final

import grpc
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status

from rekindle import errors
from rekindle.errors import FieldViolation, RekindleError

DETAILS_KEY: Final = "grpc-status-details-bin"
DOMAIN: Final = "rekindle"
#: Entry of ErrorInfo.metadata that tells the class where the reason is more specific than it.
_CLASS_KEY: Final = "error"
#: gRPC peers refuse metadata from 8 KiB on, after base64; a cut list of violations is better than no error.
_MAX_DETAILS_BYTES: Final = 4096
_MAX_MESSAGE_CHARACTERS: Final = 1000
_MAX_VALUE_CHARACTERS: Final = 200

#: The first error of a status is what a status without details becomes.
STATUS_CODES: Final[dict[type[RekindleError], grpc.StatusCode]] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.IllegalTransition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.ModelNotReady: grpc.StatusCode.FAILED_PRECONDITION,
    errors.VersionConflict: grpc.StatusCode.ABORTED,
    errors.LeaseLost: grpc.StatusCode.ABORTED,
    errors.CapacityExceeded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DependencyUnavailable: grpc.StatusCode.UNAVAILABLE,
    errors.IntegrityError: grpc.StatusCode.DATA_LOSS,
    errors.Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    errors.PermissionDenied: grpc.StatusCode.PERMISSION_DENIED,
    errors.Cancelled: grpc.StatusCode.CANCELLED,
    errors.DeadlineExceeded: grpc.StatusCode.DEADLINE_EXCEEDED,
    errors.Unsupported: grpc.StatusCode.UNIMPLEMENTED,
    errors.InternalError: grpc.StatusCode.INTERNAL,
}
_BY_DEFAULT_REASON: Final = {error.default_reason: error for error in STATUS_CODES}


def status_code(error: RekindleError) -> grpc.StatusCode:
    """The status that `error` travels as; INTERNAL where it is of no class in the table."""
    return STATUS_CODES[_known_class(error)]


def status_message(error: RekindleError) -> str:
    """The error's message, cut where it would not fit into a trailer."""
    return error.message[:_MAX_MESSAGE_CHARACTERS]


def status_details(error: RekindleError) -> bytes:
    """A serialised `google.rpc.Status` with ErrorInfo, RetryInfo and BadRequest: the value of DETAILS_KEY."""
    status = Status(code=status_code(error).value[0], message=status_message(error))
    metadata = {key: value[:_MAX_VALUE_CHARACTERS] for key, value in error.metadata.items()}
    metadata[_CLASS_KEY] = _known_class(error).default_reason
    _pack(status, ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata))
    if error.retry_after_s is not None:
        delay = Duration()
        delay.FromNanoseconds(round(error.retry_after_s * 1e9))
        _pack(status, RetryInfo(retry_delay=delay))
    if error.violations:
        _pack(status, _bad_request(error, _MAX_DETAILS_BYTES - status.ByteSize()))
    return status.SerializeToString()


def error_from_status(code: grpc.StatusCode, details_bin: bytes | None, message: str) -> RekindleError:
    """The error that a status stands for: of the class that the service raised, with all it carried.

    Without details, or with another product's, the status alone decides.
    """
    error_info, retry_info, bad_request = _unpack(details_bin)
    if error_info is None or error_info.domain != DOMAIN:
        return _error_from_code(code, message)
    metadata = dict(error_info.metadata)
    error_class = _BY_DEFAULT_REASON.get(metadata.pop(_CLASS_KEY, error_info.reason))
    if error_class is None:  # of a newer service
        error_class = type(_error_from_code(code, message))
    return error_class(
        message,
        reason=error_info.reason,
        metadata=metadata,
        violations=[FieldViolation(item.field, item.description) for item in bad_request.field_violations],
        retry_after_s=None if retry_info is None else retry_info.retry_delay.ToNanoseconds() / 1e9,
    )


def error_from_rpc(failure: grpc.RpcError) -> RekindleError:
    """What a failed call of a channel means."""
    if not isinstance(failure, (grpc.Call, grpc.aio.AioRpcError)):
        return errors.InternalError(f"call failed without a status: {type(failure).__name__}")
    trailers = dict(failure.trailing_metadata() or ())
    details_bin = trailers.get(DETAILS_KEY)
    code = failure.code() or grpc.StatusCode.UNKNOWN
    return error_from_status(
        code, details_bin if isinstance(details_bin, bytes) else None, failure.details() or code.name
    )


def _known_class(error: RekindleError) -> type[RekindleError]:
    return next((known for known in type(error).__mro__ if known in STATUS_CODES), errors.InternalError)


def _error_from_code(code: grpc.StatusCode, message: str) -> RekindleError:
    if code is grpc.StatusCode.OUT_OF_RANGE:
        return errors.InvalidInput(message, reason=code.name)
    for error_class, its_code in STATUS_CODES.items():
        if its_code is code:
            return error_class(message)
    return errors.InternalError(message, reason=code.name)


def _bad_request(error: RekindleError, room_bytes: int) -> BadRequest:
    bad_request = BadRequest()
    for violation in error.violations:
        item = BadRequest.FieldViolation(
            field=violation.field[:_MAX_VALUE_CHARACTERS],
            description=violation.description[:_MAX_VALUE_CHARACTERS],
        )
        # 64 bytes cover the framing and the type's name.
        if bad_request.ByteSize() + item.ByteSize() + 64 > room_bytes:
            break
        bad_request.field_violations.append(item)
    return bad_request


def _pack(status: Status, detail: Message) -> None:
    status.details.add().Pack(detail)


def _unpack(details_bin: bytes | None) -> tuple[ErrorInfo | None, RetryInfo | None, BadRequest]:
    error_info, retry_info, bad_request = ErrorInfo(), RetryInfo(), BadRequest()
    found: set[int] = set()
    try:
        for detail in Status.FromString(details_bin or b"").details:
            found.update(id(into) for into in (error_info, retry_info, bad_request) if detail.Unpack(into))
    except DecodeError:
        return None, None, BadRequest()
    return (
        error_info if id(error_info) in found else None,
        retry_info if id(retry_info) in found else None,
        bad_request,
    )
