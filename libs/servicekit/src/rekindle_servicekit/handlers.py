"""What the methods of every servicer do alike: read, mutate once, watch."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, Protocol, TypeVar, overload

from google.protobuf.message import Message
from rekindle.errors import DependencyUnavailable

from rekindle_servicekit import context
from rekindle_servicekit.bell import Bell
from rekindle_servicekit.idempotency import RequestKey, Requests
from rekindle_servicekit.workers import Workers

M = TypeVar("M", bound=Message)
P = TypeVar("P")
T = TypeVar("T")


class RequestLog(Protocol):
    """A unit of work that knows the requests that were answered."""

    @property
    def requests(self) -> Requests: ...


U = TypeVar("U", bound=RequestLog)
U_co = TypeVar("U_co", bound=RequestLog, covariant=True)


class State(Protocol[U_co]):
    """A service's database: units of work that read one consistent state, or write all or nothing."""

    def read(self) -> AbstractContextManager[U_co]: ...

    def write(self) -> AbstractContextManager[U_co]: ...


@dataclass(frozen=True, kw_only=True)
class Backend(Generic[U]):
    """What `Handlers` work with; a service adds its ports in a subclass."""

    state: State[U]
    workers: Workers
    #: Bell that rings after each change.
    bell: Bell
    #: Event that is set when the server is about to end.
    stopping: asyncio.Event
    #: Seconds after which a watch looks by itself, for changes that another process has made.
    watch_interval_s: float = 1.0


class News(NamedTuple):
    """What one look of a watch has found."""

    #: Messages to send; with none the watch waits for a change.
    messages: Sequence[Any]
    #: Whether nothing comes after them.
    has_ended: bool = False


class Handlers(Generic[U]):
    """Base of a servicer, or of one of its parts. A method converts, calls one of these, and converts."""

    def __init__(self, backend: Backend[U]) -> None:
        self._backend = backend

    async def read(self, work: Callable[[U], T]) -> T:
        """Carry out `work` in a thread, on one consistent state."""

        def run() -> T:
            with self._backend.state.read() as uow:
                return work(uow)

        return await self._backend.workers.run_blocking(run)

    async def answered(self, request: Any, response_type: type[M]) -> M | None:
        """The response that this request had before, None for a new one.

        For methods that receive or compute much before they `mutate`. Errors as of `mutate`.
        """
        key = _key_of(request)
        data = await self.read(lambda uow: uow.requests.find(key))
        return None if data is None else response_type.FromString(data)

    @overload
    async def mutate(
        self,
        request: Any,
        response_type: type[M],
        work: Callable[[U], M],
        *,
        changed: Callable[[M], bool] = ...,
    ) -> M: ...

    @overload
    async def mutate(
        self,
        request: Any,
        response_type: type[M],
        work: Callable[[U, P], M],
        *,
        prepare: Callable[[], P],
        changed: Callable[[M], bool] = ...,
    ) -> M: ...

    async def mutate(
        self,
        request: Any,
        response_type: type[M],
        work: Callable[..., M],
        *,
        prepare: Callable[[], Any] | None = None,
        changed: Callable[[M], bool] = lambda _: True,
    ) -> M:
        """Carry out `work` once under the request's id, in one transaction; a retry gets the first response again.

        `prepare` calls other services or reads files before the transaction begins, and hands its result to `work`.
        A response for which `changed` is false is neither kept nor made known: who waits for a case asks often.

        Raises InvalidInput without a usable request id, AlreadyExists (REQUEST_ID_REUSED) where the id belongs to
        another request, DependencyUnavailable (REQUEST_IN_PROGRESS) where a copy of the request commits first.
        """
        key = _key_of(request)
        state = self._backend.state

        def run() -> M:
            arguments: tuple[Any, ...] = ()
            if prepare is not None:
                with state.read() as uow:
                    data = uow.requests.find(key)
                if data is not None:
                    return response_type.FromString(data)
                arguments = (prepare(),)
            with state.write() as uow:
                data = uow.requests.find(key)
                if data is not None:
                    return response_type.FromString(data)
                response = work(uow, *arguments)
                if changed(response):
                    uow.requests.add(key, response.SerializeToString(deterministic=True))
                return response

        with context.bind(project=getattr(request, "project_id", None) or None):
            response = await self._backend.workers.run_blocking(run)
        if changed(response):
            self._backend.bell.ring()
        return response

    async def watch(self, look: Callable[[], Awaitable[News]]) -> AsyncGenerator[Any]:
        """Send what each look finds, until one says that it has ended; look again after each change.

        Raises DependencyUnavailable (STOPPING) when the server is about to end, so that a client
        continues from its last cursor after the restart.
        """
        backend = self._backend
        while True:
            count = backend.bell.count
            news = await look()
            for message in news.messages:
                yield message
            if news.has_ended:
                return
            if backend.stopping.is_set():
                raise DependencyUnavailable(
                    "the service is stopping: watch again from the last cursor", reason="STOPPING", retry_after_s=2.0
                )
            if not news.messages:
                await backend.bell.wait_unless(backend.stopping, count, backend.watch_interval_s)


def _key_of(request: Any) -> RequestKey:
    data = request.SerializeToString(deterministic=True)
    return RequestKey.of(context.principal(), request.DESCRIPTOR.full_name, request.request_id, data)
