"""Every RPC of a service with requests that no sound client sends, made from the descriptors alone."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import sleep, time
from typing import Any
from uuid import uuid4

import grpc
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass

# The stubs know two kinds of descriptors, of which only one has a name.
MethodDescriptor = Any
ServiceDescriptor = Any

#: What a client can never be the cause of, or what would make it try again for nothing.
NEVER = {
    grpc.StatusCode.INTERNAL,
    grpc.StatusCode.UNKNOWN,
    grpc.StatusCode.UNIMPLEMENTED,
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
}
TIMEOUT_S = 20.0
#: A stream that waits for news has told all that it knows by then.
WATCH_S = 0.3
_TEXTS = ("", "\0", "x" * 10_000, "../../etc/passwd", "' OR ''='", "%s {0} \n\U0001f480", "-1")
_INT32 = (-1, 0, 2**31 - 1, -(2**31))
_INT64 = (-1, 0, 2**63 - 1, -(2**63))
_REALS = (float("nan"), float("inf"), float("-inf"), -1.0, 1e308, 5e-324)
_BYTES = (b"", b"\0" * 100, b"\xff" * 100)
_WRONG: Mapping[int, tuple[Any, ...]] = {
    FieldDescriptor.TYPE_STRING: _TEXTS,
    FieldDescriptor.TYPE_BYTES: _BYTES,
    FieldDescriptor.TYPE_BOOL: (True, False),
    FieldDescriptor.TYPE_INT32: _INT32,
    FieldDescriptor.TYPE_INT64: _INT64,
    FieldDescriptor.TYPE_FIXED32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_ENUM: (0, 99, -1),
    FieldDescriptor.TYPE_DOUBLE: _REALS,
}
_TIMES: Mapping[str, tuple[tuple[int, int], ...]] = {
    "google.protobuf.Timestamp": ((0, -1), (2**63 - 1, 0), (-(2**63), 0), (-62135596801, 0), (253402300799, 999999999)),
    "google.protobuf.Duration": ((0, -1), (2**63 - 1, 0), (-(2**63), 0), (-1, 0), (315576000000, 0)),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one call ended."""

    method: str
    #: Which field was wrong, and how.
    what: str
    code: grpc.StatusCode
    details: str
    #: All answers, serialised.
    answer: bytes = field(repr=False)


def hostile(method: MethodDescriptor, known: Mapping[str, Any]) -> Iterator[tuple[str, Message]]:
    """An empty request, a plausible one, and plausible ones with one wrong field each; what is wrong, and the request.

    `known` gives the values of fields by name, wherever they occur.
    """
    yield "empty", GetMessageClass(method.input_type)()
    yield "plausible", plausible(method, known)
    for what, spoil in _spoilers(method.input_type, ()):
        request = plausible(method, known)
        spoil(request)
        yield what, request


def plausible(method: MethodDescriptor, known: Mapping[str, Any]) -> Message:
    """A request whose every field has a value that such a field could have."""
    message = GetMessageClass(method.input_type)()
    _fill(message, known)
    return message


def call(stub: Any, method: MethodDescriptor, request: Message, what: str) -> Outcome:
    """Send it, as the only message of a stream where the method takes one, and see how that ends."""
    for pause_s in (0.05, 0.1, 0.2, 0.4, 0.0):
        outcome = _call(stub, method, request, what)
        # As the SDK does: two calls at one moment may be in each other's way.
        if outcome.code is not grpc.StatusCode.UNAVAILABLE:
            break
        sleep(pause_s)
    return outcome


def _call(stub: Any, method: MethodDescriptor, request: Message, what: str) -> Outcome:
    sent: Any = iter([request]) if method.client_streaming else request
    timeout_s = WATCH_S if method.name.startswith("Watch") else TIMEOUT_S
    answers: list[bytes] = []
    try:
        answered = getattr(stub, method.name)(sent, timeout=timeout_s)
        arriving = answered if method.server_streaming else [answered]
        answers.extend(answer.SerializeToString() for answer in arriving)
    except grpc.RpcError as error:
        return Outcome(method.full_name, what, error.code(), error.details() or "", b"".join(answers))
    return Outcome(method.full_name, what, grpc.StatusCode.OK, "", b"".join(answers))


def call_all(
    stubs: Iterable[tuple[ServiceDescriptor, Any]],
    known: Mapping[str, Any],
    requests: Callable[[MethodDescriptor, Mapping[str, Any]], Iterable[tuple[str, Message]]] = hostile,
) -> list[Outcome]:
    """Each method of the services with all of these requests, several at a time."""
    with ThreadPoolExecutor(8) as pool:
        futures = [
            pool.submit(call, stub, method, request, what)
            for service, stub in stubs
            for method in service.methods
            for what, request in requests(method, known)
        ]
        return [future.result() for future in futures]


def only_plausible(method: MethodDescriptor, known: Mapping[str, Any]) -> Iterator[tuple[str, Message]]:
    """One request, with what is known."""
    yield "plausible", plausible(method, known)


def only_reading(method: MethodDescriptor, known: Mapping[str, Any]) -> Iterator[tuple[str, Message]]:
    """That of a method which changes nothing."""
    if method.name.startswith(("Get", "List", "Find", "BatchGet")):
        yield "plausible", plausible(method, known)


def wrong_ends(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """Those that no request may end with; a deadline is for streams that wait for news alone."""
    late = grpc.StatusCode.DEADLINE_EXCEEDED
    return [
        each
        for each in outcomes
        if each.code in NEVER or (each.code is late and not each.method.rpartition(".")[2].startswith("Watch"))
    ]


def _fill(message: Message, known: Mapping[str, Any], depth: int = 0) -> None:
    descriptor: Any = message.DESCRIPTOR
    for one in descriptor.fields:
        if one.containing_oneof is not None and one != one.containing_oneof.fields[0]:
            continue
        if one.type == FieldDescriptor.TYPE_MESSAGE:
            if one.message_type.full_name in _TIMES:
                getattr(message, one.name).seconds = int(time()) if one.message_type.name == "Timestamp" else 3600
            elif depth < 5:
                inner = getattr(message, one.name)
                _fill(inner.add() if _is_repeated(one) else inner, known, depth + 1)
            continue
        value = known[one.name] if one.name in known else _sound(one)
        if value is None:
            continue
        if _is_repeated(one):
            getattr(message, one.name).append(value)
        else:
            setattr(message, one.name, value)


def _sound(one: Any) -> Any:
    if one.name == "request_id":
        return uuid4().hex
    if one.type == FieldDescriptor.TYPE_ENUM:
        return one.enum_type.values[min(1, len(one.enum_type.values) - 1)].number
    plain = {FieldDescriptor.TYPE_INT32: 1, FieldDescriptor.TYPE_INT64: 1, FieldDescriptor.TYPE_DOUBLE: 0.5}
    return plain.get(one.type)


def _spoilers(descriptor: Any, path: tuple[str, ...]) -> Iterator[tuple[str, Callable[[Message], None]]]:
    """How each field of a message, and of those inside of it, can be made wrong."""
    if len(path) > 4:
        return
    for one in descriptor.fields:
        where = (*path, one.name)
        if one.type != FieldDescriptor.TYPE_MESSAGE:
            for value in _WRONG[one.type]:
                yield f"{'.'.join(where)} = {value!r:.30}", _setter(where, value)
            if _is_repeated(one):
                yield f"{'.'.join(where)} x 2000", _repeater(where)
        elif one.message_type.full_name in _TIMES:
            for seconds, nanos in _TIMES[one.message_type.full_name]:
                yield f"{'.'.join(where)} = {seconds} s {nanos} ns", _setter(where, (seconds, nanos))
        else:
            yield f"{'.'.join(where)} empty", _emptier(where)
            if _is_repeated(one):
                yield f"{'.'.join(where)} twice", _repeater(where, times=2)
            yield from _spoilers(one.message_type, where)


def _setter(where: tuple[str, ...], value: Any) -> Callable[[Message], None]:
    def spoil(message: Message) -> None:
        parent, one = _parent(message, where)
        if one.type == FieldDescriptor.TYPE_MESSAGE:
            target = getattr(parent, one.name)
            target.seconds, target.nanos = value
        elif _is_repeated(one):
            del getattr(parent, one.name)[:]
            getattr(parent, one.name).append(value)
        else:
            setattr(parent, one.name, value)

    return spoil


def _repeater(where: tuple[str, ...], times: int = 2000) -> Callable[[Message], None]:
    def spoil(message: Message) -> None:
        parent, one = _parent(message, where)
        values = getattr(parent, one.name)
        if len(values):
            values.extend([values[0]] * (times - 1))

    return spoil


def _emptier(where: tuple[str, ...]) -> Callable[[Message], None]:
    def spoil(message: Message) -> None:
        parent, one = _parent(message, where)
        parent.ClearField(one.name)
        if not _is_repeated(one):
            getattr(parent, one.name).SetInParent()

    return spoil


def _parent(message: Message, where: tuple[str, ...]) -> tuple[Message, Any]:
    for name in where[:-1]:
        inner = getattr(message, name)
        repeated = _is_repeated(message.DESCRIPTOR.fields_by_name[name])
        message = (inner[0] if len(inner) else inner.add()) if repeated else inner
    return message, message.DESCRIPTOR.fields_by_name[where[-1]]


def _is_repeated(one: Any) -> bool:
    return bool(one.is_repeated)
