"""Calls to one service: deadlines, precise errors, and retries where they are safe."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, cast
from uuid import uuid4

import grpc

from rekindle._status import error_from_rpc
from rekindle.errors import CapacityExceeded, DependencyUnavailable, RekindleError

MAX_MESSAGE_BYTES = 4 * 1024 * 1024

Answer = TypeVar("Answer")


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

    def wait_s(self, attempt: int, error: RekindleError) -> float:
        """Seconds to wait after try number `attempt` (from 1); the service's own hint wins."""
        if error.retry_after_s is not None:
            return min(error.retry_after_s, self.max_wait_s)
        return min(self.first_wait_s * 2 ** (attempt - 1), self.max_wait_s) * random.uniform(0.5, 1.0)


def new_request_id() -> str:
    """A fresh idempotency key. A retry must reuse the one of the first try."""
    return str(uuid4())


def open_channel(address: str, credentials: Credentials | None) -> grpc.Channel:
    """A channel with the message limits that the services have."""
    options: list[tuple[str, Any]] = [
        ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
        ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
        ("grpc.keepalive_time_ms", 60_000),
    ]
    if credentials is not None:
        return credentials.channel(address, options)
    return grpc.insecure_channel(address, options=options)


class Caller:
    """Calls methods of stubs; what fails raises a `rekindle.errors` class."""

    def __init__(self, *, timeout_s: float = 60.0, retry: Retry | None = None) -> None:
        self.timeout_s = timeout_s
        self.retry = retry or Retry()

    def unary(
        self, method: Callable[..., Answer], request: object, *, timeout_s: float | None = None
    ) -> Answer:
        """One request, one answer. Safe to repeat: every mutation carries a request_id."""
        return self.repeat(lambda: method(request, timeout=timeout_s or self.timeout_s))

    def repeat(self, call: Callable[[], Answer]) -> Answer:
        """Runs `call` again while the service is away or full; `call` must be idempotent."""
        for attempt in range(1, self.retry.attempts + 1):
            try:
                return call()
            except grpc.RpcError as failure:
                error = error_from_rpc(failure)
                retriable = isinstance(error, CapacityExceeded | DependencyUnavailable)
                if not retriable or attempt == self.retry.attempts:
                    raise error from None
                time.sleep(self.retry.wait_s(attempt, error))
        raise AssertionError("unreachable: the last try returns or raises")

    def stream(
        self, method: Callable[..., Any], request: object, *, timeout_s: float | None = None
    ) -> Iterator[Any]:
        """One request (or an iterator of them), many answers. Ending the iteration early cancels the call."""
        call = cast(Any, method(request, timeout=timeout_s))
        try:
            yield from call
        except grpc.RpcError as failure:
            raise error_from_rpc(failure) from None
        finally:
            call.cancel()
