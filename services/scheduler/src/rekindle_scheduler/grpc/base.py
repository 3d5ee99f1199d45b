"""What every method of the servicer does alike: threads, transactions, requests that were answered before."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message
from rekindle.errors import DependencyUnavailable
from rekindle_servicekit import context, idempotency
from rekindle_servicekit.bell import Bell
from rekindle_servicekit.principal import Principal
from rekindle_servicekit.workers import Workers

from rekindle_scheduler.ports import Inference
from rekindle_scheduler.state import State, UnitOfWork

M = TypeVar("M", bound=Message)
P = TypeVar("P")
T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Backend:
    """What the servicer works with."""

    state: State
    inference: Inference
    bell: Bell
    workers: Workers
    #: Set when the server is about to end.
    stopping: asyncio.Event
    #: How often a watcher looks by itself, for changes that another scheduler has made.
    watch_interval_s: float = 1.0


class Handlers:
    """Base of the servicer's parts, one for each noun."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def _read(self, work: Callable[[UnitOfWork, Principal], T]) -> T:
        """Carry out `work` on one consistent state."""
        principal = context.principal()

        def run() -> T:
            with self._backend.state.read() as uow:
                return work(uow, principal)

        return await self._backend.workers.run_blocking(run)

    async def _mutate(
        self,
        request: Any,
        response_type: type[M],
        work: Callable[[UnitOfWork, Principal], M],
        *,
        changed: Callable[[M], bool] = lambda _: True,
    ) -> M:
        """Carry out `work` once under the request's id; the response of the first time is given again.

        One that has not `changed` anything is neither kept nor told of: whoever waits for a case asks often.
        """
        return await self._mutate_prepared(
            request, response_type, lambda: None, lambda uow, principal, _: work(uow, principal), changed=changed
        )

    async def _mutate_prepared(
        self,
        request: Any,
        response_type: type[M],
        prepare: Callable[[], P],
        work: Callable[[UnitOfWork, Principal, P], M],
        *,
        changed: Callable[[M], bool] = lambda _: True,
    ) -> M:
        """As `_mutate`, with calls of other services in `prepare`, before the transaction begins."""
        principal = context.principal()
        with context.bind(project=getattr(request, "project_id", None) or None):
            response = await self._backend.workers.run_blocking(
                _answer, self._backend.state, principal, request, response_type, prepare, work, changed
            )
        if changed(response):
            self._backend.bell.ring()
        return response

    async def _wait(self, heard: int) -> None:
        """Wait for a change; DependencyUnavailable where the server is about to end: OK would end the watch."""
        backend = self._backend
        stop = asyncio.ensure_future(backend.stopping.wait())
        ring = asyncio.ensure_future(backend.bell.wait(heard, backend.watch_interval_s))
        try:
            await asyncio.wait([stop, ring], return_when=asyncio.FIRST_COMPLETED)
        finally:
            stop.cancel()
            ring.cancel()
        if backend.stopping.is_set():
            raise DependencyUnavailable(
                "the service is about to end: watch again, after the last cursor", reason="STOPPING", retry_after_s=1.0
            )


def _answer(
    state: State,
    principal: Principal,
    request: Any,
    response_type: type[M],
    prepare: Callable[[], P],
    work: Callable[[UnitOfWork, Principal, P], M],
    changed: Callable[[M], bool],
) -> M:
    method = str(request.DESCRIPTOR.full_name)
    digest = idempotency.digest_request(request.SerializeToString(deterministic=True))
    key = (principal, method, str(request.request_id), digest)
    with state.read() as uow:
        known = uow.requests.remember(*key)
    if known is not None:
        return response_type.FromString(known)
    prepared = prepare()
    with state.write() as uow:
        known = uow.requests.remember(*key)
        if known is not None:
            return response_type.FromString(known)
        response = work(uow, principal, prepared)
        if changed(response):
            uow.requests.store(*key, response.SerializeToString(deterministic=True))
        return response
