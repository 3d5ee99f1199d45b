"""What every call, of all four kinds, goes through: log line, mapping of errors, deadline, caller."""

from __future__ import annotations

import asyncio
import inspect
import logging
import re
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast
from uuid import uuid4

import grpc
from rekindle.errors import InternalError, InvalidInput, PermissionDenied, RekindleError, Unauthenticated
from rekindle.status import DETAILS_KEY, status_code, status_details, status_message

from rekindle_servicekit import context
from rekindle_servicekit.identity import Authenticator, Caller
from rekindle_servicekit.permissions import PERMISSIONS, Permission, check_permission

_log = logging.getLogger(__name__)

REQUEST_ID_KEY = "x-request-id"
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_HEALTH = "/grpc.health.v1.Health/"

Behavior = Callable[[Any, Any], Any]
ServicerContext = grpc.aio.ServicerContext[Any, Any]


@dataclass(frozen=True, slots=True)
class Call:
    """One call being served."""

    #: Full name, ``/rekindle.api.scheduler.v1.SchedulerService/GetProject``.
    method: str
    context: ServicerContext

    def metadata(self) -> dict[str, str | bytes]:
        return dict(self.context.invocation_metadata() or ())

    def is_probe(self) -> bool:
        """Whether it is a health check: these carry no credentials, and are neither logged nor counted."""
        return self.method.startswith(_HEALTH)


class Surround(grpc.aio.ServerInterceptor, ABC):
    """An interceptor that is an async context manager around each call, whatever the call's kind."""

    @abstractmethod
    def around(self, call: Call) -> AbstractAsyncContextManager[None]:
        """What happens before and after; exceptions of the call are raised inside."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[grpc.RpcMethodHandler[Any, Any] | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Any:
        handler = cast("Any", await continuation(handler_call_details))
        if handler is None:  # no such method
            return None
        kind = f"{_word(handler.request_streaming)}_{_word(handler.response_streaming)}"
        behavior = self._surrounded(str(handler_call_details.method), getattr(handler, kind))
        make_handler = getattr(grpc, f"{kind}_rpc_method_handler")
        return make_handler(
            behavior,
            request_deserializer=handler.request_deserializer,
            response_serializer=handler.response_serializer,
        )

    def _surrounded(self, method: str, behavior: Behavior) -> Behavior:
        async def call(request: Any, servicer_context: ServicerContext) -> Any:
            async with self.around(Call(method, servicer_context)):
                return await _complete(behavior(request, servicer_context), servicer_context)

        return call


async def _complete(outcome: Any, servicer_context: ServicerContext) -> Any:
    """See a handler through: await its response, or write what it yields.

    Writing here, rather than passing the generator on, makes a cancelled call raise inside of it at once.
    """
    if inspect.isasyncgen(outcome):
        async with aclosing(outcome) as responses:
            async for response in responses:
                await servicer_context.write(response)
        return None
    if not inspect.isawaitable(outcome):
        raise TypeError("a servicer's method must be a coroutine function or an async generator function")
    return await outcome


def _word(is_stream: bool) -> str:
    return "stream" if is_stream else "unary"


class LogCalls(Surround):
    """One line a call: what, how it ended, how long it took; never what was in it. Sets the request id."""

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncGenerator[None]:
        started = time.monotonic()
        code = grpc.StatusCode.UNKNOWN
        with context.bind(request_id=_request_id(call)):
            try:
                yield
                code = ended_with(call, None)
            except BaseException as error:
                code = ended_with(call, error)
                raise
            finally:
                duration_ms = round((time.monotonic() - started) * 1000, 1)
                _log.log(
                    logging.DEBUG if call.is_probe() else logging.INFO,
                    "%s %s",
                    call.method,
                    code.name,
                    extra={"action": call.method, "code": code.name, "duration_ms": duration_ms},
                )


def ended_with(call: Call, failure: BaseException | None) -> grpc.StatusCode:
    """The status of a call that has ended, by the exception that left it."""
    if isinstance(failure, asyncio.CancelledError):
        return _cancellation_code(call.context)
    return _final_code(call.context, grpc.StatusCode.OK if failure is None else grpc.StatusCode.UNKNOWN)


def _request_id(call: Call) -> str:
    given = call.metadata().get(REQUEST_ID_KEY)
    return given if isinstance(given, str) and _REQUEST_ID.fullmatch(given) else uuid4().hex


def _final_code(servicer_context: ServicerContext, default: grpc.StatusCode) -> grpc.StatusCode:
    # The context gives a number for a status that abort() has set, and 0 where nothing was set.
    code = cast("Any", servicer_context).code()
    if not code:
        return default
    number = code.value[0] if isinstance(code, grpc.StatusCode) else code
    return next((known for known in grpc.StatusCode if known.value[0] == number), default)


def _cancellation_code(servicer_context: ServicerContext) -> grpc.StatusCode:
    remaining_s = _time_remaining_s(servicer_context)
    is_late = remaining_s is not None and remaining_s <= 0
    return grpc.StatusCode.DEADLINE_EXCEEDED if is_late else grpc.StatusCode.CANCELLED


def _time_remaining_s(servicer_context: ServicerContext) -> float | None:
    # The stubs do not know that calls without a deadline have None here.
    return cast("float | None", servicer_context.time_remaining())


class MapErrors(Surround):
    """Errors become statuses with details; the unforeseen becomes INTERNAL and a traceback in the log."""

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncGenerator[None]:
        try:
            yield
        except grpc.aio.AbortError:
            raise
        except NotImplementedError:
            message = f"{call.method} is not implemented by this service"
            await call.context.abort(grpc.StatusCode.UNIMPLEMENTED, message)
        except Exception as error:
            await _abort(call, error)


async def _abort(call: Call, error: Exception) -> None:
    mapped = error if isinstance(error, RekindleError) else None
    if mapped is None or status_code(mapped) is grpc.StatusCode.INTERNAL:
        mapped = _incident(error)
    trailers = (*(call.context.trailing_metadata() or ()), (DETAILS_KEY, status_details(mapped)))
    await call.context.abort(status_code(mapped), status_message(mapped), trailers)


def _incident(error: Exception) -> InternalError:
    """What may be told of an unforeseen error: where its traceback is. Its text could hold anything."""
    incident_id = uuid4().hex
    _log.error("incident %s", incident_id, exc_info=error, extra={"action": "incident", "incident_id": incident_id})
    if isinstance(error, InternalError):
        return InternalError(
            error.message,
            reason=error.reason,
            metadata={**error.metadata, "incident_id": incident_id},
            violations=error.violations,
            retry_after_s=error.retry_after_s,
        )
    message = f"the service failed: its log has the details as incident {incident_id}"
    return InternalError(message, metadata={"incident_id": incident_id})


class RequireDeadline(Surround):
    """Refuses calls that would wait for ever."""

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncGenerator[None]:
        if _time_remaining_s(call.context) is None and not call.is_probe():
            raise InvalidInput("the call has no deadline: set a timeout", reason="DEADLINE_REQUIRED")
        yield


class Admit(Surround):
    """Sets the caller's Principal; refuses whom nobody knows, and what none of their roles may call.

    Long calls are looked at again: one whose caller is not let in any more ends. Health checks pass, as they have no
    caller.
    """

    def __init__(self, authenticator: Authenticator, table: Mapping[str, Permission], check_every_s: float) -> None:
        self._authenticator = authenticator
        self._table = table
        self._check_every_s = check_every_s

    @asynccontextmanager
    async def around(self, call: Call) -> AsyncGenerator[None]:
        if call.is_probe():
            yield
            return
        names = call.context.peer_identities() or ()
        caller = Caller(
            peer=call.context.peer(),
            metadata=call.metadata(),
            certificate_names=certificate_names(names),
        )
        principal = await self._authenticator.authenticate(caller)
        check_permission(principal, call.method, self._table)
        watch = _Watch(lambda: self._check_again(caller, call.method), self._check_every_s)
        with context.bind(principal=principal):
            try:
                yield
            except asyncio.CancelledError:
                if watch.refusal is None:
                    raise
                cast("asyncio.Task[Any]", asyncio.current_task()).uncancel()
                raise watch.refusal from None
            finally:
                watch.end()

    async def _check_again(self, caller: Caller, method: str) -> None:
        check_permission(await self._authenticator.authenticate(caller), method, self._table)


def certificate_names(names: Iterable[bytes]) -> tuple[str, ...]:
    """Those that can tell callers apart: no empty ones, and none that would have to be guessed at."""
    found: list[str] = []
    for name in names:
        with suppress(UnicodeDecodeError):
            found.append(name.decode())
    return tuple(name for name in found if name.strip())


class _Watch:
    """Cancels the task that makes it once `check` refuses; looks now and then, until it is ended."""

    def __init__(self, check: Callable[[], Awaitable[None]], every_s: float) -> None:
        self._check = check
        self._every_s = every_s
        #: Error for which the task was cancelled; None where the cancellation came from elsewhere.
        self.refusal: RekindleError | None = None
        self._watched = cast("asyncio.Task[Any]", asyncio.current_task())
        self._loop = asyncio.get_running_loop()
        self._looking: asyncio.Task[None] | None = None
        # Most calls have ended before: they cost a timer and no task.
        self._timer = self._loop.call_later(every_s, self._begin)

    def end(self) -> None:
        self._timer.cancel()
        if self._looking is not None:
            self._looking.cancel()

    def _begin(self) -> None:
        self._looking = self._loop.create_task(self._look())

    async def _look(self) -> None:
        while True:
            try:
                await self._check()
            except (Unauthenticated, PermissionDenied) as error:
                self.refusal = error
                self._watched.cancel()
                return
            except Exception:  # what cannot be told now may be told the next time
                _log.exception("a caller could not be looked at again", extra={"action": "callers.unchecked"})
            await asyncio.sleep(self._every_s)


def default_interceptors(
    authenticator: Authenticator,
    *,
    require_deadline: bool = False,
    permissions: Mapping[str, Permission] = PERMISSIONS,
    check_every_s: float,
    outside: Sequence[Surround] = (),
    inside: Sequence[Surround] = (),
) -> Sequence[Surround]:
    """The interceptors of a service, outermost first; `outside` sees statuses, `inside` our errors."""
    deadline = [RequireDeadline()] if require_deadline else []
    caller = Admit(authenticator, permissions, check_every_s)
    return [LogCalls(), *outside, MapErrors(), *inside, *deadline, caller]
