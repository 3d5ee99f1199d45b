"""Channels that carry a token, and channels that reopen when their certificates are replaced."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc

from rekindle.errors import RekindleError
from rekindle.watched_files import WatchedFiles

_log = logging.getLogger(__name__)
#: Channels with replaced certificates that stay open, so that their calls can end.
_KEPT_CHANNELS = 2


class BearerToken(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """Adds ``authorization: Bearer <token>`` to every call; `token` is asked at each."""

    def __init__(self, token: Callable[[], str]) -> None:
        self._token = token

    def _intercept(self, continuation: Any, details: Any, request: Any) -> Any:
        metadata = (*(details.metadata or ()), ("authorization", f"Bearer {self._token()}"))
        return continuation(_Details(details, metadata), request)

    # One method serves all four kinds of calls; the stubs name their parameters differently.
    intercept_unary_unary: Any = _intercept
    intercept_unary_stream: Any = _intercept
    intercept_stream_unary: Any = _intercept
    intercept_stream_stream: Any = _intercept


class _Details(grpc.ClientCallDetails):
    """A call's details with other metadata."""

    def __init__(self, details: Any, metadata: tuple[tuple[str, str | bytes], ...]) -> None:
        self.method = details.method
        self.timeout = details.timeout
        self.metadata = metadata
        self.credentials = details.credentials
        self.wait_for_ready = details.wait_for_ready
        self.compression = details.compression


class RenewedChannel(grpc.Channel):
    """A channel by `open_channel` that reopens once `files` have changed; running calls stay on the old one."""

    def __init__(self, open_channel: Callable[[], grpc.Channel], files: WatchedFiles) -> None:
        self._open, self._files = open_channel, files
        self._lock = threading.Lock()
        self._channel = open_channel()
        self._old: deque[grpc.Channel] = deque()

    def current(self) -> grpc.Channel:
        """The channel for the next call. Certificates that cannot be read leave the one that there is."""
        with self._lock:
            if self._files.have_changed():
                self._renew()
            return self._channel

    def _renew(self) -> None:
        try:
            channel = self._open()
        except RekindleError as error:
            _log.warning("still using the old certificates: %s", error.message)
            self._files.were_of_no_use()
            return
        self._old.append(self._channel)
        self._channel = channel
        if len(self._old) > _KEPT_CHANNELS:
            self._old.popleft().close()

    def _late(self, kind: str, method: str, *arguments: Any, **options: Any) -> Any:
        return _LateMethod(self, lambda channel: getattr(channel, kind)(method, *arguments, **options))

    def unary_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._late("unary_unary", method, *arguments, **options)

    def unary_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._late("unary_stream", method, *arguments, **options)

    def stream_unary(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._late("stream_unary", method, *arguments, **options)

    def stream_stream(self, method: str, *arguments: Any, **options: Any) -> Any:
        return self._late("stream_stream", method, *arguments, **options)

    def subscribe(self, callback: Any, try_to_connect: bool = False) -> None:
        self._channel.subscribe(callback, try_to_connect=try_to_connect)

    def unsubscribe(self, callback: Any) -> None:
        self._channel.unsubscribe(callback)

    def close(self) -> None:
        with self._lock:
            for channel in (*self._old, self._channel):
                channel.close()

    def __enter__(self) -> RenewedChannel:
        return self

    def __exit__(self, *_: object) -> bool:
        self.close()
        return False


class _LateMethod:
    """A method that binds to the current channel at each call."""

    def __init__(self, channel: RenewedChannel, bind: Callable[[grpc.Channel], Any]) -> None:
        self._channel, self._bind = channel, bind
        self._bound: tuple[grpc.Channel, Any] | None = None

    def _method(self) -> Any:
        channel, bound = self._channel.current(), self._bound
        if bound is None or bound[0] is not channel:
            bound = self._bound = (channel, self._bind(channel))
        return bound[1]

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return self._method()(*arguments, **options)

    def with_call(self, *arguments: Any, **options: Any) -> Any:
        return self._method().with_call(*arguments, **options)

    def future(self, *arguments: Any, **options: Any) -> Any:
        return self._method().future(*arguments, **options)
