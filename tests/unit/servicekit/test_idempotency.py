"""Requests that come twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa
from rekindle.errors import AlreadyExists, DependencyUnavailable, InvalidInput
from rekindle_servicekit.database import make_engine, read, write
from rekindle_servicekit.idempotency import define_requests, digest_request, forget, remember, store
from rekindle_servicekit.principal import Principal

_ANN = Principal(issuer="i", subject="ann", display_name="Ann")
_NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)
_DIGEST = digest_request(b"request")


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[sa.Engine]:
    """A database with the table, made as part of a service's own metadata."""
    metadata = sa.MetaData()
    define_requests(metadata)
    engine = make_engine(f"sqlite:///{tmp_path}/test.db")
    metadata.create_all(engine)
    yield engine
    engine.dispose()


def test_digest_is_sha256() -> None:
    """The digest is SHA-256 in hex: the empty string's is well known."""
    assert "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" == digest_request(b"")


def test_answer_is_remembered(engine: sa.Engine) -> None:
    """A new request is unknown; once stored, its response comes back, in later transactions too."""
    with write(engine) as connection:
        assert remember(connection, _ANN, "Submit", "q1", _DIGEST) is None
        store(connection, _ANN, "Submit", "q1", _DIGEST, b"\x00response", now=_NOON)
        assert b"\x00response" == remember(connection, _ANN, "Submit", "q1", _DIGEST)
    with read(engine) as connection:
        assert b"\x00response" == remember(connection, _ANN, "Submit", "q1", _DIGEST)


def test_empty_response_is_an_answer(engine: sa.Engine) -> None:
    """A response of no bytes is remembered as such, not taken for a new request."""
    with write(engine) as connection:
        store(connection, _ANN, "Release", "q1", _DIGEST, b"", now=_NOON)
        assert b"" == remember(connection, _ANN, "Release", "q1", _DIGEST)


def test_reused_id_is_refused(engine: sa.Engine) -> None:
    """Another request under the same id is AlreadyExists with the reason REQUEST_ID_REUSED."""
    with write(engine) as connection:
        store(connection, _ANN, "Submit", "q1", _DIGEST, b"r", now=_NOON)
        with pytest.raises(AlreadyExists, match="this request_id was used") as caught:
            remember(connection, _ANN, "Submit", "q1", digest_request(b"another"))
    assert "REQUEST_ID_REUSED" == caught.value.reason


@pytest.mark.parametrize(
    ("principal", "method"),
    [
        (Principal(issuer="i", subject="bob", display_name="Ann"), "Submit"),
        (Principal(issuer="j", subject="ann", display_name="Ann"), "Submit"),
        (_ANN, "Release"),
    ],
)
def test_ids_belong_to_caller_and_method(engine: sa.Engine, principal: Principal, method: str) -> None:
    """The same id of another caller, or for another method, is another request."""
    with write(engine) as connection:
        store(connection, _ANN, "Submit", "q1", _DIGEST, b"r", now=_NOON)
        assert remember(connection, principal, method, "q1", digest_request(b"another")) is None


def test_rolled_back_work_is_forgotten(engine: sa.Engine) -> None:
    """If the transaction fails, so that the work was not done, the request counts as new."""

    def fail() -> None:
        with write(engine) as connection:
            store(connection, _ANN, "Submit", "q1", _DIGEST, b"r", now=_NOON)
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    with read(engine) as connection:
        assert remember(connection, _ANN, "Submit", "q1", _DIGEST) is None


def test_copy_that_lost_the_race_is_told_to_retry(engine: sa.Engine) -> None:
    """Storing what a copy of the request has stored meanwhile asks for a retry, which finds the answer."""
    with write(engine) as connection:
        store(connection, _ANN, "Submit", "q1", _DIGEST, b"first", now=_NOON)
    with pytest.raises(DependencyUnavailable) as caught, write(engine) as connection:
        store(connection, _ANN, "Submit", "q1", _DIGEST, b"second", now=_NOON)
    assert "REQUEST_IN_PROGRESS" == caught.value.reason
    with read(engine) as connection:
        assert b"first" == remember(connection, _ANN, "Submit", "q1", _DIGEST)


@pytest.mark.parametrize("request_id", ["", "x" * 129, "line\nbreak"])
def test_bad_ids_are_refused(engine: sa.Engine, request_id: str) -> None:
    """An id that is missing, too long or not printable is InvalidInput of the field request_id."""
    with write(engine) as connection:
        with pytest.raises(InvalidInput) as caught:
            remember(connection, _ANN, "Submit", request_id, _DIGEST)
        with pytest.raises(InvalidInput):
            store(connection, _ANN, "Submit", request_id, _DIGEST, b"r", now=_NOON)
    assert ["request_id"] == [violation.field for violation in caught.value.violations]


def test_old_answers_can_be_forgotten(engine: sa.Engine) -> None:
    """Forgetting removes what was answered before the moment, and nothing else."""
    with write(engine) as connection:
        store(connection, _ANN, "Submit", "old", _DIGEST, b"r", now=_NOON - timedelta(days=8))
        store(connection, _ANN, "Submit", "new", _DIGEST, b"r", now=_NOON)
        assert 1 == forget(connection, before=_NOON - timedelta(days=7))
        assert remember(connection, _ANN, "Submit", "old", _DIGEST) is None
        assert b"r" == remember(connection, _ANN, "Submit", "new", _DIGEST)
