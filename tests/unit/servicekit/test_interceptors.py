"""What every call goes through, for all four call kinds, over a real server."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from rekindle import errors
from rekindle.errors import FieldViolation, RekindleError
from rekindle.status import error_from_rpc
from rekindle_servicekit import context
from rekindle_servicekit.identity import Caller
from rekindle_servicekit.interceptors import certificate_names
from rekindle_servicekit.principal import Principal
from rekindle_servicekit.server import ServerOptions

Stack = Callable[..., Any]


async def _echo(request: bytes, _: Any) -> bytes:
    return request


async def _failure(stack: Stack, work: Any, kind: str, **options: Any) -> RekindleError:
    async with stack(work) as running:
        with pytest.raises(grpc.RpcError) as caught:
            await running.call(kind, b"x", **options)
        return error_from_rpc(caught.value)


def test_calls_pass_through(stack: Stack, kind: str) -> None:
    """Each kind of call brings back what the servicer answers."""

    async def scenario() -> list[bytes]:
        async with stack(_echo) as running:
            return await running.call(kind, b"ab")

    expected = {
        "unary_unary": [b"ab"],
        "unary_stream": [b"ab"] * 3,
        "stream_unary": [b"abab"],
        "stream_stream": [b"ab"] * 2,
    }
    assert expected[kind] == asyncio.run(scenario())


@pytest.mark.parametrize(
    "error_class",
    [error for error in RekindleError.__subclasses__() if error.__module__ == "rekindle.errors"],
)
def test_every_error_arrives_as_itself(stack: Stack, error_class: type[RekindleError]) -> None:
    """What a servicer raises is what the client gets, with all that it carries."""
    raised = error_class(
        "organ 'leber' ist unbekannt: ä\nuse liver",
        reason="UNKNOWN_ORGAN",
        metadata={"organ": "leber"},
        violations=[FieldViolation("organs[0].id", "unknown")],
        retry_after_s=2.5,
    )

    async def work(request: bytes, _: Any) -> bytes:
        raise raised

    got = asyncio.run(_failure(stack, work, "unary_unary"))
    got.metadata.pop("incident_id", None)
    assert error_class is type(got)
    assert vars(raised) == vars(got)


def test_errors_of_all_kinds_are_mapped(stack: Stack, kind: str) -> None:
    """The mapping holds for unary and streaming requests and responses alike."""

    async def work(request: bytes, _: Any) -> bytes:
        raise errors.LeaseLost("lease l1 has expired", metadata={"lease": "l1"})

    got = asyncio.run(_failure(stack, work, kind))
    assert (errors.LeaseLost, {"lease": "l1"}) == (type(got), got.metadata)


def test_error_after_first_responses(stack: Stack) -> None:
    """A stream that fails in the middle delivers what came before, then the error."""
    answered = 0

    async def work(request: bytes, _: Any) -> bytes:
        nonlocal answered
        answered += 1
        if answered == 3:
            raise errors.CapacityExceeded("full", retry_after_s=0.5)
        return request

    async def scenario() -> tuple[int, RekindleError]:
        async with stack(work) as running:
            call = running.channel.unary_stream("/rekindle.tests.Echo/unary_stream")(b"x")
            received = [await call.read(), await call.read()]
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await call.read()
            return received.count(b"x"), error_from_rpc(caught.value)

    received, got = asyncio.run(scenario())
    assert (2, errors.CapacityExceeded, 0.5) == (received, type(got), got.retry_after_s)


def test_unforeseen_error_tells_nothing_but_its_incident(
    stack: Stack, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The caller gets INTERNAL with an incident id; text and traceback are in the log under that id only."""

    async def work(request: bytes, _: Any) -> bytes:
        raise ValueError("patient Jane Doe")

    got = asyncio.run(_failure(stack, work, kind))
    incidents = [record for record in caplog.records if getattr(record, "action", "") == "incident"]
    assert errors.InternalError is type(got)
    assert "Jane" not in repr(vars(got))
    assert [got.metadata["incident_id"]] == [vars(record)["incident_id"] for record in incidents]
    assert got.metadata["incident_id"] in str(got)
    assert incidents[0].exc_info is not None
    assert "Jane" in str(incidents[0].exc_info[1])


def test_servicer_may_abort_by_itself(stack: Stack) -> None:
    """An abort by the servicer, or by a library's, keeps its status."""

    async def work(request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.OUT_OF_RANGE, "too far")
        return b""

    got = asyncio.run(_failure(stack, work, "unary_unary"))
    assert (errors.InvalidInput, "too far", "OUT_OF_RANGE") == (type(got), str(got), got.reason)


def test_unimplemented_methods_say_so(stack: Stack) -> None:
    """A method without a body, and one that does not exist, are UNIMPLEMENTED and no incident."""

    async def work(request: bytes, _: Any) -> bytes:
        raise NotImplementedError

    async def unknown() -> grpc.StatusCode:
        async with stack(_echo) as running:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await running.channel.unary_unary("/rekindle.tests.Echo/Missing")(b"")
            return caught.value.code()

    assert "UNIMPLEMENTED" == asyncio.run(_failure(stack, work, "unary_unary")).reason
    assert grpc.StatusCode.UNIMPLEMENTED is asyncio.run(unknown())


def test_one_log_line_per_call(stack: Stack, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """A call leaves one line with action, code and duration, and nothing of what was sent."""
    caplog.set_level(logging.INFO, "rekindle_servicekit.interceptors")

    async def scenario() -> None:
        async with stack(_echo) as running:
            await running.call(kind, b"payload-of-the-call")

    asyncio.run(scenario())
    lines = [record for record in caplog.records if record.name == "rekindle_servicekit.interceptors"]
    assert [(f"/rekindle.tests.Echo/{kind}", "OK")] == [(vars(line)["action"], vars(line)["code"]) for line in lines]
    assert 0 <= vars(lines[0])["duration_ms"] < 5000
    assert "payload" not in repr([vars(line) for line in lines])


def test_log_line_has_the_code_of_a_failure(stack: Stack, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """The line of a failed call has the status that the caller saw."""
    caplog.set_level(logging.INFO, "rekindle_servicekit.interceptors")

    async def work(request: bytes, _: Any) -> bytes:
        raise errors.NotFound("no such case")

    asyncio.run(_failure(stack, work, kind))
    assert ["NOT_FOUND"] == [vars(record)["code"] for record in caplog.records if hasattr(record, "code")]


@pytest.mark.parametrize(("sent", "is_kept"), [("abc-1.2_3", True), ("x" * 65, False), ("a b", False), ("a{b}", False)])
def test_request_id_is_taken_or_made(stack: Stack, sent: str, is_kept: bool) -> None:
    """A well-formed x-request-id is the id in the servicer's context; any other is replaced by a new one."""
    seen: list[str | None] = []

    async def work(request: bytes, _: Any) -> bytes:
        seen.append(context.request_id())
        return request

    async def scenario() -> None:
        async with stack(work) as running:
            await running.call("unary_unary", b"", metadata=(("x-request-id", sent),))

    asyncio.run(scenario())
    assert is_kept is (seen[0] == sent)
    assert seen[0]


class _TokenAuthenticator:
    """Knows one bearer token."""

    async def authenticate(self, caller: Caller) -> Principal:
        if caller.metadata.get("authorization") != "Bearer good":
            raise errors.Unauthenticated("the token is not known: sign in again")
        return Principal(issuer="test", subject="ann", display_name="Ann", roles=frozenset({"annotator"}))


def test_principal_is_in_context(stack: Stack, kind: str) -> None:
    """In every kind of call the servicer sees the authenticated caller."""
    seen: set[Principal] = set()

    async def work(request: bytes, _: Any) -> bytes:
        seen.add(context.principal())
        return request

    async def scenario() -> None:
        async with stack(work, authenticator=_TokenAuthenticator()) as running:
            await running.call(kind, b"x", metadata=(("authorization", "Bearer good"),))

    asyncio.run(scenario())
    assert {Principal(issuer="test", subject="ann", display_name="Ann", roles=frozenset({"annotator"}))} == seen


def test_unknown_caller_never_reaches_the_servicer(stack: Stack, kind: str) -> None:
    """Without valid credentials the servicer is not called."""
    calls = 0

    async def work(request: bytes, _: Any) -> bytes:
        nonlocal calls
        calls += 1
        return request

    async def scenario() -> grpc.StatusCode:
        async with stack(work, authenticator=_TokenAuthenticator()) as running:
            with pytest.raises(grpc.RpcError) as caught:
                await running.call(kind, b"x", metadata=(("authorization", "Bearer bad"),))
            return caught.value.code()

    assert (grpc.StatusCode.UNAUTHENTICATED, 0) == (asyncio.run(scenario()), calls)


class _Revocable(_TokenAuthenticator):
    """Knows it until it is told not to."""

    refusal: RekindleError | None = None
    asked = 0

    async def authenticate(self, caller: Caller) -> Principal:
        self.asked += 1
        if self.refusal is not None:
            raise self.refusal
        return await super().authenticate(caller)


@pytest.mark.parametrize("kind", ["unary_unary", "raw", "stream_unary", "stream_stream"])
def test_a_call_ends_when_its_caller_is_let_in_no_more(stack: Stack, kind: str) -> None:
    """However long it would have gone on; it gets the reason, and what it was doing is called off."""
    ended: list[str] = []

    async def forever(request: Any, _: Any) -> bytes:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("called off")
            raise
        return b""

    async def stream(request: bytes, _: Any) -> Any:
        yield await forever(request, _)

    async def scenario() -> RekindleError:
        authenticator = _Revocable()
        options = ServerOptions(check_callers_every_s=0.05)
        async with stack(stream if kind == "raw" else forever, options, authenticator) as running:
            metadata = (("authorization", "Bearer good"),)
            method = getattr(running.channel, "unary_stream" if kind == "raw" else kind)(f"/rekindle.tests.Echo/{kind}")
            call = method(iter([b"x"]) if kind.startswith("stream") else b"x", metadata=metadata, timeout=20)
            while authenticator.asked < 3:
                await asyncio.sleep(0.01)
            authenticator.refusal = errors.Unauthenticated("the token has expired", reason="TOKEN_EXPIRED")
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await (call.read() if kind.endswith("stream") or kind == "raw" else call)
            return error_from_rpc(caught.value)

    got = asyncio.run(scenario())
    assert (errors.Unauthenticated, "TOKEN_EXPIRED", ["called off"]) == (type(got), got.reason, ended)


def test_only_names_that_tell_callers_apart_are_names() -> None:
    """Two certificates without one, or with bytes that are no text, must not be one caller."""
    assert ("scheduler.example", "ärzte") == certificate_names(
        [b"", b" ", b"\xff", b"\xfe", b"scheduler.example", "ärzte".encode()]
    )
    assert () == certificate_names([])


def test_a_caller_who_hangs_up_is_no_refusal(stack: Stack, caplog: pytest.LogCaptureFixture) -> None:
    """Nor is one whose deadline passes: the line says so."""
    caplog.set_level(logging.INFO, "rekindle_servicekit.interceptors")

    async def forever(request: bytes, _: Any) -> bytes:
        await asyncio.sleep(60)
        return request

    async def scenario() -> None:
        async with stack(forever, ServerOptions(check_callers_every_s=0.01)) as running:
            with pytest.raises(grpc.aio.AioRpcError):
                await running.channel.unary_unary("/rekindle.tests.Echo/unary_unary")(b"", timeout=0.2)
            while not [record for record in caplog.records if hasattr(record, "code")]:
                await asyncio.sleep(0.01)

    asyncio.run(scenario())
    assert ["DEADLINE_EXCEEDED"] == [vars(record)["code"] for record in caplog.records if hasattr(record, "code")]


def test_deadline_can_be_required(stack: Stack, kind: str) -> None:
    """With the switch on a call needs a timeout; off, which is the default, it does not."""

    async def scenario() -> str:
        async with stack(_echo, ServerOptions(require_deadline=True)) as running:
            await running.call(kind, b"x", timeout=5)
            with pytest.raises(grpc.RpcError) as caught:
                await running.call(kind, b"x")
            return error_from_rpc(caught.value).reason

    assert "DEADLINE_REQUIRED" == asyncio.run(scenario())


def test_messages_over_4_mib_are_refused(stack: Stack) -> None:
    """4 MiB pass, one byte more does not."""

    async def scenario() -> tuple[int, grpc.StatusCode]:
        async with stack(lambda request, _: _echo(request[:1], None)) as running:
            received = await running.call("unary_unary", bytes(4 * 1024 * 1024))
            with pytest.raises(grpc.RpcError) as caught:
                await running.call("unary_unary", bytes(4 * 1024 * 1024 + 1))
            return len(received[0]), caught.value.code()

    assert (1, grpc.StatusCode.RESOURCE_EXHAUSTED) == asyncio.run(scenario())
