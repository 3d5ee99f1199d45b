"""Channels to other services, and calls whose failures are Rekindle's errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import grpc
from rekindle.credentials import Access
from rekindle.errors import (
    DeadlineExceeded,
    DependencyUnavailable,
    PermissionDenied,
    RekindleError,
    Unauthenticated,
)
from rekindle.status import error_from_rpc
from rekindle_servicekit.server import MAX_MESSAGE_BYTES

_OPTIONS: tuple[tuple[str, Any], ...] = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    # A service that was restarted is found again within seconds.
    ("grpc.initial_reconnect_backoff_ms", 200),
    ("grpc.max_reconnect_backoff_ms", 2_000),
    # Two addresses of one process must not share a connection that one of them has lost.
    ("grpc.use_local_subchannel_pool", 1),
)


def open_channel(
    address: str, access: Access | None = None, *, max_message_bytes: int = MAX_MESSAGE_BYTES
) -> grpc.Channel:
    """A channel to `address`; it connects with the first call and again whenever it must.

    `access` brings TLS and a token; without it the channel is plain. InvalidInput as of `Access`.
    """
    limits = (f"grpc.max_{way}_message_length" for way in ("receive", "send"))
    options = (*_OPTIONS, *((limit, max_message_bytes) for limit in limits))
    return grpc.insecure_channel(address, options=options) if access is None else access.channel(address, options)


class Remote:
    """Another service: calls it with a deadline and names it in the errors."""

    def __init__(self, name: str) -> None:
        self._name = name

    def call(self, method: Callable[..., Any], request: Any, timeout_s: float) -> Any:
        """The response; DependencyUnavailable where the service is away, too slow or refuses us, else its own error."""
        try:
            return method(request, timeout=timeout_s)
        except grpc.RpcError as failure:
            raise self._converted(failure) from failure

    def stream(self, method: Callable[..., Iterable[Any]], request: Any, timeout_s: float) -> Iterator[Any]:
        """The responses as they come; leaving the loop early cancels the call. Errors as of `call`."""
        call: Any = method(request, timeout=timeout_s)
        try:
            yield from call
        except grpc.RpcError as failure:
            raise self._converted(failure) from failure
        finally:
            call.cancel()

    def _converted(self, failure: grpc.RpcError) -> RekindleError:
        error = error_from_rpc(failure)
        if isinstance(error, DependencyUnavailable) and error.reason != error.default_reason:
            return error
        if isinstance(error, (DependencyUnavailable, DeadlineExceeded)):
            return DependencyUnavailable(
                f"the {self._name} service cannot be reached or does not answer in time: the call may be sent again",
                reason=f"{self._name.upper()}_UNAVAILABLE",
                retry_after_s=error.retry_after_s or 1.0,
            )
        if isinstance(error, (Unauthenticated, PermissionDenied)):
            # The scheduler's own credentials are refused, not the caller's. They are renewed while it runs.
            return DependencyUnavailable(
                f"the {self._name} service refuses the scheduler ({error.message}): look at the scheduler's "
                f"peer_token_file or peer_certificate, and at the callers that the {self._name} service knows",
                reason=f"{self._name.upper()}_REFUSES",
                retry_after_s=5.0,
            )
        return error
