"""Requests already answered: a mutation sent twice under one request id happens once."""

from __future__ import annotations

import hashlib
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

import sqlalchemy as sa
from rekindle.errors import AlreadyExists, DependencyUnavailable, FieldViolation, InvalidInput
from sqlalchemy.exc import IntegrityError

from rekindle_servicekit.database import UtcDateTime
from rekindle_servicekit.principal import Principal

MAX_REQUEST_ID_LENGTH = 128

requests = sa.Table(
    "requests",
    sa.MetaData(),
    sa.Column("issuer", sa.Text, primary_key=True),
    sa.Column("subject", sa.Text, primary_key=True),
    sa.Column("method", sa.Text, primary_key=True),
    sa.Column("request_id", sa.Text, primary_key=True),
    sa.Column("request_digest", sa.Text, nullable=False),
    sa.Column("response", sa.LargeBinary, nullable=False),
    sa.Column("answered_at", UtcDateTime, nullable=False, index=True),
)


def define_requests(metadata: sa.MetaData) -> sa.Table:
    """Make the table part of a service's own metadata, and so of its migrations."""
    return requests.to_metadata(metadata)


def digest_request(request: bytes) -> str:
    """SHA-256 in hex of a request that was serialised deterministically."""
    return hashlib.sha256(request).hexdigest()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestKey:
    """Identity of a mutation: who asks for what, under which id."""

    principal: Principal
    #: Full name of the request's message.
    method: str
    request_id: str
    #: SHA-256 of the request: tells a retry from another request under the same id.
    digest: str

    @classmethod
    def of(cls, principal: Principal, method: str, request_id: str, request: bytes) -> RequestKey:
        """The key of a request that was serialised deterministically."""
        return cls(principal=principal, method=method, request_id=request_id, digest=digest_request(request))


class Requests:
    """Repository of answered requests, in the transaction of a unit of work."""

    def __init__(self, connection: sa.Connection, now: datetime) -> None:
        self._connection = connection
        self._now = now

    def find(self, key: RequestKey) -> bytes | None:
        """The response that this request had before, None for a new one; errors as of `remember`."""
        return remember(self._connection, key.principal, key.method, key.request_id, key.digest)

    def add(self, key: RequestKey, response: bytes) -> None:
        """Keep the response of a request; errors as of `store`."""
        store(self._connection, key.principal, key.method, key.request_id, key.digest, response, now=self._now)


def remember(
    conn: sa.Connection, principal: Principal, method: str, request_id: str, request_digest: str
) -> bytes | None:
    """The response that this request had before, or None where it is new: to be carried out now, then stored.

    In the caller's transaction. AlreadyExists (REQUEST_ID_REUSED): another request had this id. InvalidInput:
    no id, or one that is too long.
    """
    _validate_request_id(request_id)
    columns = sa.select(requests.c.request_digest, requests.c.response)
    row = conn.execute(columns.where(_key(principal, method, request_id))).one_or_none()
    if row is None:
        return None
    if row.request_digest != request_digest:
        raise AlreadyExists(
            "this request_id was used for another request of this method: use a new one",
            reason="REQUEST_ID_REUSED",
        )
    return bytes(row.response)


def store(
    conn: sa.Connection,
    principal: Principal,
    method: str,
    request_id: str,
    request_digest: str,
    response: bytes,
    *,
    now: datetime,
) -> None:
    """Keep the response in the transaction that did the work, so that both are there or neither.

    DependencyUnavailable (REQUEST_IN_PROGRESS) where a copy of the request committed meanwhile: the caller's
    transaction must be rolled back, and the retry finds that copy's response.
    """
    _validate_request_id(request_id)
    row = {
        "issuer": principal.issuer,
        "subject": principal.subject,
        "method": method,
        "request_id": request_id,
        "request_digest": request_digest,
        "response": response,
        "answered_at": now,
    }
    try:
        conn.execute(sa.insert(requests).values(row))
    except IntegrityError:
        raise DependencyUnavailable(
            "the same request is being answered at this moment: send it again",
            reason="REQUEST_IN_PROGRESS",
            retry_after_s=0.1,
        ) from None


def forget(conn: sa.Connection, *, before: datetime) -> int:
    """Remove what was answered before a moment; how many that were."""
    return conn.execute(sa.delete(requests).where(requests.c.answered_at < before)).rowcount


def redact(conn: sa.Connection, needles: Collection[str]) -> None:
    """Overwrite texts that must not be kept, wherever an answer has them, with as many zeros.

    The length stays, so that what the answer is made of can still be read.
    """
    for needle in sorted(needle for needle in needles if needle):
        data = needle.encode()
        overwrite(conn, data, b"0" * len(data))


def overwrite(conn: sa.Connection, data: bytes, stand_in: bytes) -> None:
    """Put `stand_in` into every answer that is kept where `data` was."""
    for row in conn.execute(sa.select(requests).where(_contains(conn, data))).all():
        same_row = sa.and_(*(column == getattr(row, column.name) for column in requests.primary_key.columns))
        redacted = bytes(row.response).replace(data, stand_in)
        conn.execute(sa.update(requests).where(same_row).values(response=redacted))


def _contains(conn: sa.Connection, data: bytes) -> sa.ColumnElement[bool]:
    if conn.dialect.name == "sqlite":
        return sa.func.instr(requests.c.response, sa.literal(data, sa.LargeBinary)) > 0
    return sa.func.position(sa.literal(data, sa.LargeBinary).op("IN")(requests.c.response)) > 0


def _key(principal: Principal, method: str, request_id: str) -> sa.ColumnElement[bool]:
    return sa.and_(
        requests.c.issuer == principal.issuer,
        requests.c.subject == principal.subject,
        requests.c.method == method,
        requests.c.request_id == request_id,
    )


def _validate_request_id(request_id: str) -> None:
    if not request_id:
        problem = "is missing: give each request an id of its own, and the same one to its retries"
    elif len(request_id) > MAX_REQUEST_ID_LENGTH or not request_id.isprintable():
        problem = f"must be at most {MAX_REQUEST_ID_LENGTH} printable characters"
    else:
        return
    raise InvalidInput(f"request_id {problem}", violations=[FieldViolation("request_id", problem)])
