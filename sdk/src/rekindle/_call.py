"""Calls to one service: deadlines, precise errors, and retries where they are safe."""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, TypeVar
from uuid import NAMESPACE_OID, uuid4, uuid5

import grpc
from google.protobuf.message import Message

from rekindle.errors import CapacityExceeded, DependencyUnavailable, RekindleError, Unsupported
from rekindle.status import DETAILS_KEY, error_from_rpc

MAX_MESSAGE_BYTES = 4 * 1024 * 1024
#: Rate below which a transfer runs into its deadline.
SLOWEST_BYTES_PER_S = 512 * 1024

#: Ways to send files. "auto": in one stream, and in pieces where that breaks; "stream": only so; "pieces": chunk by
#: chunk; "address": by HTTP to the object store where it has addresses for that, else in pieces.
UploadWay: TypeAlias = Literal["auto", "stream", "pieces", "address"]
#: Function that a transfer calls with (bytes done, bytes in all).
Progress: TypeAlias = Callable[[int, int], None]

Answer = TypeVar("Answer")


#: Reason of the error where the two sides' TLS does not fit together: trying again would not help.
TLS_FAILED = "TLS_FAILED"
#: Words of gRPC for failures of TLS.
_TLS_FAILURE = re.compile(r"CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER|Hostname Verification Check")
#: Words of gRPC where a service speaks TLS and the client does not, or misses a client certificate.
_HUNG_UP = "Socket closed"


class Credentials(Protocol):
    """How a client proves who it is. Loopback needs none."""

    def channel(self, address: str, options: list[tuple[str, Any]]) -> grpc.Channel: ...


@dataclass(frozen=True, kw_only=True)
class Retry:
    """When and how often a failed call is tried again."""

    #: Tries in all; 1 never retries.
    attempts: int = 5
    #: Wait before the second try; doubles with each, with jitter.
    first_wait_s: float = 0.2
    max_wait_s: float = 5.0
    #: A service that asks for a longer wait than this gets no second try: the caller decides.
    longest_hint_s: float = 30.0

    def wait_s(self, attempt: int, error: RekindleError) -> float | None:
        """Seconds to wait after try number `attempt` (from 1); None gives up. The service's own hint wins."""
        if attempt >= self.attempts:
            return None
        if error.retry_after_s is not None:
            return error.retry_after_s if error.retry_after_s <= self.longest_hint_s else None
        return min(self.first_wait_s * 2 ** (attempt - 1), self.max_wait_s) * random.uniform(0.5, 1.0)


def new_request_id() -> str:
    """A fresh idempotency key. A retry must reuse the one of the first try."""
    return str(uuid4())


def content_request_id(request: Message) -> str:
    """An idempotency key made from a request's content: the same request again is the same act."""
    content = request.SerializeToString(deterministic=True)
    return str(uuid5(NAMESPACE_OID, f"{request.DESCRIPTOR.full_name} {content.hex()}"))


def open_channel(address: str, credentials: Credentials | None) -> grpc.Channel:
    """A channel with the message limits that the services have."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 60_000),
        # gRPC alone would wait up to two minutes before it tries a broken connection again.
        ("grpc.initial_reconnect_backoff_ms", 200),
        ("grpc.max_reconnect_backoff_ms", 5_000),
    ]
    if credentials is not None:
        return credentials.channel(address, options)
    return grpc.insecure_channel(address, options=options)


class Caller:
    """Calls methods of stubs; what fails raises a `rekindle.errors` class."""

    def __init__(
        self,
        *,
        timeout_s: float = 60.0,
        retry: Retry | None = None,
        addresses: Mapping[str, str] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        uploads: UploadWay = "auto",
    ) -> None:
        self.timeout_s = timeout_s
        self.uploads: UploadWay = uploads
        self.retry = retry or Retry()
        #: Service name to address, for messages.
        self.addresses = dict(addresses or {})
        self._sleep = sleep

    def unary(self, method: Callable[..., Answer], request: object, *, timeout_s: float | None = None) -> Answer:
        """One request, one answer. Safe to repeat: every mutation carries a request_id."""
        return self.repeat(lambda: method(request, timeout=timeout_s or self.timeout_s))

    def once(self, call: Callable[[], Answer]) -> Answer:
        """Runs `call` once; a failure raises our error."""
        try:
            return call()
        except grpc.RpcError as failure:
            raise self._error(failure) from None

    def repeat(self, call: Callable[[], Answer]) -> Answer:
        """Runs `call` again while the service is away or full; `call` must be idempotent."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return call()
            except (grpc.RpcError, RekindleError) as failure:
                error = self._error(failure)
                wait_s = self.retry.wait_s(attempt, error) if _is_passing(error) else None
                if wait_s is None:
                    raise error from None
            self._sleep(wait_s)

    def stream(self, method: Callable[..., Any], request: object, *, timeout_s: float | None = None) -> Iterator[Any]:
        """One request (or an iterator of them), many answers. Ending the iteration early cancels the call."""
        call: Any = method(request, timeout=timeout_s)
        try:
            yield from call
        except grpc.RpcError as failure:
            raise self._error(failure) from None
        finally:
            call.cancel()

    def follow(self, watch: Callable[[int], Iterator[Answer]], cursor: int) -> Iterator[Answer]:
        """Yields what `watch(cursor)` does; when the service goes away, resumes after the last cursor.

        Answers carry their own `cursor`. Gives up after as many failures in a row as a call would.
        """
        failures = 0
        while True:
            try:
                for answer in watch(cursor):
                    failures = 0
                    cursor = max(cursor, getattr(answer, "cursor", 0))
                    yield answer
                return
            except DependencyUnavailable as error:
                failures += 1
                wait_s = self.retry.wait_s(failures, error)
                if wait_s is None:
                    raise
            self._sleep(wait_s)

    def transfer_timeout_s(self, size_bytes: int) -> float:
        """A deadline that leaves a large file the time that its size needs."""
        return self.timeout_s + size_bytes / SLOWEST_BYTES_PER_S

    def _error(self, failure: grpc.RpcError | RekindleError) -> RekindleError:
        if isinstance(failure, RekindleError):
            return failure
        error = error_from_rpc(failure)
        if isinstance(error, Unsupported):
            return Unsupported(f"the server does not know this call: it is older than this client ({error.message})")
        if not isinstance(error, DependencyUnavailable) or _has_details(failure):
            return error
        if _TLS_FAILURE.search(error.message):
            return DependencyUnavailable(
                f"{self._unreachable(error.message)} and this client do not agree on TLS: check that the service "
                "speaks TLS, that its authority is the one given (ca=, --ca or REKINDLE_CA) and that its certificate "
                f"names the address ({_tls_words(error.message)})",
                reason=TLS_FAILED,
            )
        hint = ", and whether it asks for TLS or a client certificate" if _HUNG_UP in error.message else ""
        return DependencyUnavailable(
            f"{self._unreachable(error.message)} cannot be reached: check that it runs and that the address is "
            f"right{hint} ({_first_sentence(error.message)})",
            reason="UNREACHABLE",
        )

    def _unreachable(self, details: str) -> str:
        """Names the service that gRPC's own message is about, where it tells."""
        port = re.search(r":(\d+): ", details)
        for name, address in self.addresses.items():
            if address in details or (port and address.endswith(f":{port[1]}")):
                return f"the {name} service at {address}"
        where = ", ".join(f"{name} {address}" for name, address in self.addresses.items())
        return f"a service of Rekindle ({where})" if where else "a service of Rekindle"


def _is_passing(error: RekindleError) -> bool:
    return isinstance(error, CapacityExceeded | DependencyUnavailable) and error.reason != TLS_FAILED


def _has_details(failure: grpc.RpcError) -> bool:
    """Whether one of the services said it; what gRPC itself makes up carries nothing."""
    trailers = failure.trailing_metadata() if isinstance(failure, grpc.Call) else None
    return any(item.key == DETAILS_KEY for item in trailers or ())


def _tls_words(details: str) -> str:
    match = _TLS_FAILURE.search(details)
    return match[0].lower().replace("_", " ") if match else ""


def _first_sentence(details: str) -> str:
    return details.split(";")[0].strip().rstrip(".")
