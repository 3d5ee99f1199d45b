"""The errors themselves, and their way to a gRPC status and back."""

from __future__ import annotations

import pickle
import subprocess
import sys

import grpc
import pytest
from google.rpc.error_details_pb2 import BadRequest, ErrorInfo, RetryInfo
from google.rpc.status_pb2 import Status
from rekindle import errors
from rekindle.errors import FieldViolation, RekindleError, quoted_id
from rekindle.status import error_from_status, status_code, status_details, status_message

# The table of DESIGN: class, status.
_TABLE = [
    (errors.InvalidInput, "INVALID_ARGUMENT", 3),
    (errors.NotFound, "NOT_FOUND", 5),
    (errors.AlreadyExists, "ALREADY_EXISTS", 6),
    (errors.IllegalTransition, "FAILED_PRECONDITION", 9),
    (errors.ModelNotReady, "FAILED_PRECONDITION", 9),
    (errors.LeaseLost, "ABORTED", 10),
    (errors.VersionConflict, "ABORTED", 10),
    (errors.CapacityExceeded, "RESOURCE_EXHAUSTED", 8),
    (errors.DependencyUnavailable, "UNAVAILABLE", 14),
    (errors.IntegrityError, "DATA_LOSS", 15),
    (errors.Unauthenticated, "UNAUTHENTICATED", 16),
    (errors.PermissionDenied, "PERMISSION_DENIED", 7),
    (errors.Cancelled, "CANCELLED", 1),
    (errors.DeadlineExceeded, "DEADLINE_EXCEEDED", 4),
    (errors.Unsupported, "UNIMPLEMENTED", 12),
    (errors.InternalError, "INTERNAL", 13),
]


def _all_subclasses(base: type[RekindleError]) -> set[type[RekindleError]]:
    return {found for child in base.__subclasses__() for found in {child, *_all_subclasses(child)}}


def test_table_covers_every_error() -> None:
    """Every class of rekindle.errors has a row in the table that these tests go through."""
    public = {error for error in _all_subclasses(RekindleError) if error.__module__ == "rekindle.errors"}
    assert public == {row[0] for row in _TABLE}


def test_errors_and_package_do_not_import_grpc() -> None:
    """Domain code can use the errors without grpc or protobuf being loaded."""
    script = (
        "import sys, rekindle, rekindle.errors; "
        "print([name for name in ('grpc', 'google.protobuf', 'numpy') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "[]" == done.stdout.strip()


def test_default_reason_and_own_reason() -> None:
    """The reason comes from the class unless a more specific one is given."""
    assert "INVALID_INPUT" == errors.InvalidInput("wrong").reason
    assert "NOT_A_VOLUME" == errors.InvalidInput("wrong", reason="NOT_A_VOLUME").reason
    assert "wrong" == str(errors.InvalidInput("wrong", reason="NOT_A_VOLUME"))


def test_error_survives_pickling() -> None:
    """An error crosses a process boundary whole."""
    error = errors.LeaseLost(
        "gone", reason="STALE_TOKEN", metadata={"lease": "l1"}, violations=[FieldViolation("token", "old")]
    )
    copy = pickle.loads(pickle.dumps(error))
    assert vars(error) == vars(copy)
    assert errors.LeaseLost is type(copy)


@pytest.mark.parametrize(("error_class", "code", "number"), _TABLE)
def test_status_of_each_error(error_class: type[RekindleError], code: str, number: int) -> None:
    """Each error has the status of the design's table, also in the serialised details."""
    error = error_class("what is wrong")
    assert grpc.StatusCode[code] is status_code(error)
    status = Status.FromString(status_details(error))
    assert (number, "what is wrong") == (status.code, status.message)


@pytest.mark.parametrize("error_class", [row[0] for row in _TABLE])
def test_details_come_back_as_the_same_error(error_class: type[RekindleError]) -> None:
    """Class, message, reason, metadata, violations and retry delay survive the way over the wire."""
    error = error_class(
        "organ liver is given twice",
        reason="MORE_SPECIFIC",
        metadata={"organ": "liver"},
        violations=[FieldViolation("organs[0].id", "twice"), FieldViolation("organs[1].id", "twice")],
        retry_after_s=1.5,
    )
    code, details = status_code(error), status_details(error)
    back = error_from_status(code, details, error.message)
    assert error_class is type(back)
    assert vars(error) == vars(back)


def test_details_are_the_standard_messages() -> None:
    """Any client can read the details: ErrorInfo, RetryInfo and BadRequest of google.rpc."""
    error = errors.InvalidInput(
        "bad", reason="NAN_SPACING", violations=[FieldViolation("spacing", "is NaN")], retry_after_s=0.25
    )
    status = Status.FromString(status_details(error))
    info, retry, bad = ErrorInfo(), RetryInfo(), BadRequest()
    assert [True, True, True] == [
        detail.Unpack(into) for detail, into in zip(status.details, (info, retry, bad), strict=True)
    ]
    assert ("NAN_SPACING", "rekindle", "INVALID_INPUT") == (info.reason, info.domain, info.metadata["error"])
    assert (0, 250_000_000) == (retry.retry_delay.seconds, retry.retry_delay.nanos)
    assert [("spacing", "is NaN")] == [(item.field, item.description) for item in bad.field_violations]


def test_subclass_travels_as_its_base() -> None:
    """A service's own, narrower class arrives as the public class it derives from."""

    class StaleToken(errors.LeaseLost):
        default_reason = "STALE_TOKEN"

    error = StaleToken("stale")
    back = error_from_status(status_code(error), status_details(error), error.message)
    assert (errors.LeaseLost, "STALE_TOKEN") == (type(back), back.reason)


def test_newer_class_falls_back_on_its_status() -> None:
    """A class that this client does not know becomes the one of its status and keeps the reason."""
    info = ErrorInfo(reason="QUOTA_OF_SITE", domain="rekindle", metadata={"error": "QUOTA_EXCEEDED", "site": "a"})
    status = Status(code=8)
    status.details.add().Pack(info)
    back = error_from_status(grpc.StatusCode.RESOURCE_EXHAUSTED, status.SerializeToString(), "full")
    assert (errors.CapacityExceeded, "QUOTA_OF_SITE", {"site": "a"}) == (
        type(back),
        back.reason,
        back.metadata,
    )


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        (grpc.StatusCode.INVALID_ARGUMENT, errors.InvalidInput),
        (grpc.StatusCode.OUT_OF_RANGE, errors.InvalidInput),
        (grpc.StatusCode.UNAVAILABLE, errors.DependencyUnavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, errors.DeadlineExceeded),
        (grpc.StatusCode.FAILED_PRECONDITION, errors.IllegalTransition),
        (grpc.StatusCode.ABORTED, errors.VersionConflict),
        (grpc.StatusCode.UNIMPLEMENTED, errors.Unsupported),
        (grpc.StatusCode.UNKNOWN, errors.InternalError),
    ],
)
@pytest.mark.parametrize("details", [None, b"", b"\xff not a status", "other domain"])
def test_status_without_our_details(
    code: grpc.StatusCode, expected: type[RekindleError], details: bytes | str | None
) -> None:
    """What a proxy or gRPC itself answers becomes the class of its status, whatever is in the trailer."""
    if isinstance(details, str):
        status = Status(code=code.value[0])
        status.details.add().Pack(ErrorInfo(reason="LEASE_LOST", domain="proxy.example"))
        details = status.SerializeToString()
    back = error_from_status(code, details, "text")
    assert (expected, "text") == (type(back), str(back))


def test_details_stay_small() -> None:
    """Ten thousand violations and a long message still fit into gRPC's 8 KiB of metadata after base64."""
    error = errors.InvalidInput(
        "x" * 100_000,
        metadata={"key": "y" * 100_000},
        violations=[FieldViolation(f"cases[{number}]", "unknown " * 100) for number in range(10_000)],
    )
    details = status_details(error)
    back = error_from_status(grpc.StatusCode.INVALID_ARGUMENT, details, status_message(error))
    assert len(details) + len(status_message(error)) < 8192 * 3 // 4
    assert "cases[0]" == back.violations[0].field
    assert len(back.violations) > 5


def test_ids_are_repeated_only_where_a_service_made_them() -> None:
    """An accession number that was sent as an id by mistake does not come back in the error's text."""
    made = "0b0e7a52-8a3c-4c55-9d5e-0f4f6f0a1b2c"
    assert [repr(made), repr(made.replace("-", ""))] == [quoted_id(made), quoted_id(made.replace("-", ""))]
    for sent in ("ACC1234567", "1.2.840.113619", "", f"{made} ", "DOE^JANE"):
        assert sent.strip() == "" or sent not in quoted_id(sent)
        assert "none that a service made" in quoted_id(sent)
