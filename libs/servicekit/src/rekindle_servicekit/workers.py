"""Blocking work off the event loop: a bounded pool of threads, and a token that stops their work."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache, partial
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from rekindle.errors import Cancelled, CapacityExceeded, DeadlineExceeded

P = ParamSpec("P")
T = TypeVar("T")


class CallContext(Protocol):
    """The part of a gRPC servicer context that tells how long the caller waits."""

    def time_remaining(self) -> float | None: ...


class Cancellation:
    """Tells blocking work that its caller no longer waits for it; like a `threading.Event` that is set then."""

    def __init__(self, timeout_s: float | None = None) -> None:
        self._event = threading.Event()
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s

    def set(self) -> None:
        """Cancel the work."""
        self._event.set()

    def is_set(self) -> bool:
        """Whether to stop: called off, or past the deadline."""
        return self._event.is_set() or self._is_late()

    def wait(self, timeout_s: float | None = None) -> bool:
        """Sleep until it is time to stop, at most `timeout_s`; whether it is."""
        limits = [limit for limit in (timeout_s, self.time_remaining_s()) if limit is not None]
        self._event.wait(min(limits) if limits else None)
        return self.is_set()

    def raise_if_set(self) -> None:
        """To be called between the steps of long work; Cancelled or DeadlineExceeded."""
        if self._event.is_set():
            raise Cancelled("the work was called off: its caller has gone")
        if self._is_late():
            raise DeadlineExceeded("the caller's deadline passed before the work was done")

    def time_remaining_s(self) -> float | None:
        """Seconds until the deadline, not below 0; None without one."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def _is_late(self) -> bool:
        return self._deadline is not None and time.monotonic() >= self._deadline


class Workers:
    """At most `max_threads` pieces of blocking work at a time, and at most `max_waiting` in the queue."""

    def __init__(self, *, max_threads: int = 16, max_waiting: int = 512, name: str = "worker") -> None:
        self._executor = ThreadPoolExecutor(max_threads, thread_name_prefix=name)
        self._places = threading.BoundedSemaphore(max_threads + max_waiting)
        self._max_waiting = max_waiting

    async def run_blocking(self, func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """`func` in a thread, with the context variables of here; CapacityExceeded where the queue is full.

        Work that has begun is finished, even when its caller no longer waits.
        """
        return await asyncio.wrap_future(self._submit(partial(func, *args, **kwargs)))

    async def run_cancellable(
        self,
        context: CallContext | None,
        func: Callable[Concatenate[Cancellation, P], T],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> T:
        """`func(cancellation, ...)` in a thread; returns or raises only once the thread has really stopped.

        The token is set when this task is cancelled (the caller hung up) and when the call's deadline passes.
        """
        cancellation = Cancellation(None if context is None else context.time_remaining())
        work = self._submit(partial(func, cancellation, *args, **kwargs))
        waiter = asyncio.wrap_future(work)
        try:
            return await asyncio.shield(waiter)
        except asyncio.CancelledError:
            cancellation.set()
            work.cancel()  # succeeds only while the work is still queued
            await _settle(waiter)
            raise

    def close(self) -> None:
        """Wait for what runs, drop what waits."""
        self._executor.shutdown(wait=True, cancel_futures=True)

    def _submit(self, job: Callable[[], T]) -> Future[T]:
        if not self._places.acquire(blocking=False):
            raise CapacityExceeded(
                f"{self._max_waiting} calls are waiting already: try again later",
                reason="QUEUE_FULL",
                retry_after_s=1.0,
            )
        try:
            future = self._executor.submit(contextvars.copy_context().run, job)
        except RuntimeError:
            self._places.release()
            raise
        future.add_done_callback(lambda _: self._places.release())
        return future


async def _settle(waiter: asyncio.Future[T]) -> None:
    while not waiter.done():
        try:
            await asyncio.wait([waiter])
        except asyncio.CancelledError:
            continue  # a second cancellation waits too: the thread cannot be left running
    if not waiter.cancelled():
        waiter.exception()  # taken note of, so that asyncio does not report it as lost


@cache
def default_workers() -> Workers:
    """The pool of this process for code that was not given one."""
    return Workers()


async def run_blocking(func: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """`Workers.run_blocking` on the process's default pool."""
    return await default_workers().run_blocking(func, *args, **kwargs)


async def run_cancellable(
    context: CallContext | None,
    func: Callable[Concatenate[Cancellation, P], T],
    *args: P.args,
    **kwargs: P.kwargs,
) -> T:
    """`Workers.run_cancellable` on the process's default pool."""
    return await default_workers().run_cancellable(context, func, *args, **kwargs)
