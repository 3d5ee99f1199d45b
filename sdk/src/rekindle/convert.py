"""Records as protobuf messages and back, by their annotations.

A record is a frozen dataclass or a NamedTuple. Its fields have the names of the message's:

| record | message |
|---|---|
| a word of a `StrEnum`; a plain `str` or Literal, as in "out-of-view" | enum, by its name without the prefix |
| `datetime` (UTC), `timedelta` | Timestamp, Duration |
| record, tuple, Mapping | message, repeated, map |
| None | not set; "" in a string that has no presence |

What has other names or needs a decision is given by keyword.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import MISSING, fields, is_dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any, NewType, TypeVar, Union, cast, get_args, get_origin, get_type_hints

from google.protobuf.descriptor import EnumDescriptor, FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from rekindle.errors import FieldViolation, InvalidInput

M = TypeVar("M", bound=Message)
T = TypeVar("T")
W = TypeVar("W", bound=StrEnum)

Reader = Callable[[Any, str], Any]
#: A reader answers with this where the message leaves a field to the record's default.
_UNSET = object()


def to_proto(record: Any, message_type: type[M], /, **given: Any) -> M:
    """The record as a message; `given` holds fields by name, as messages or plain values, None for not set.

    AttributeError where a field of the message is neither in the record nor given, so that none is forgotten.
    """
    values: dict[str, Any] = {}
    for name, write in _writers(message_type):
        value = given.pop(name) if name in given else getattr(record, name)
        if value is not None:
            values[name] = write(value)
    if given:
        raise TypeError(f"{message_type.__name__} has no field {sorted(given)}")
    return message_type(**values)


def from_proto(message: Any, record_type: type[T], /, field: str = "", **given: Any) -> T:
    """The message as a record; `given` holds what the message does not have or says in another way.

    A field of the record that the message does not have, or has not set, takes its default. InvalidInput names the
    field by its path below `field`: an enum's number is missing or not known, a message that must be there is
    missing, a moment lies outside the calendar.
    """
    values = dict(given)
    for name, read in _readers(record_type, message.DESCRIPTOR):
        if name not in given:
            value = read(message, f"{field}.{name}" if field else name)
            if value is not _UNSET:
                values[name] = value
    return record_type(**values)


def number_of(api_enum: Any, word: str) -> Any:
    """The API's number for a word; InvalidInput lists the words where it is not one of them."""
    return _number(api_enum.DESCRIPTOR, word)


def word_of(words: type[W], api_enum: Any, number: int, field: str) -> W:
    """The word for one of the API's numbers; InvalidInput for one that is unspecified or not known."""
    return _word(words, api_enum.DESCRIPTOR, number, field)


def name_of(api_enum: Any, number: int) -> str:
    """`ORGAN_STATUS_OUT_OF_VIEW` as "out-of-view"; a number of a newer service as "unknown-7"."""
    return _name(api_enum.DESCRIPTOR, number)


def names_of(api_enum: Any) -> tuple[str, ...]:
    """All names of an enum as `name_of` gives them, without the unspecified one."""
    return _names(api_enum.DESCRIPTOR)


def timestamp(moment: datetime | None) -> Timestamp | None:
    """None stays None, which leaves a field unset."""
    if moment is None:
        return None
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def moment(message: Timestamp, field: str) -> datetime:
    """The moment in UTC; InvalidInput where it lies outside the calendar."""
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        raise _wrong(field, "is no moment of the calendar") from None


def duration(span: timedelta | float) -> Duration:
    """A span, or a number of seconds, as a message."""
    seconds = span.total_seconds() if isinstance(span, timedelta) else span
    message = Duration()
    message.FromNanoseconds(round(seconds * 1e9))
    return message


def span(message: Duration, field: str) -> timedelta:
    """The span of time; InvalidInput for one that is out of range."""
    try:
        return timedelta(seconds=message.seconds, microseconds=message.nanos / 1000)
    except OverflowError:
        raise _wrong(field, "is out of range") from None


@cache
def _writers(message_type: type[Message]) -> tuple[tuple[str, Callable[[Any], Any]], ...]:
    descriptor = cast("Any", message_type).DESCRIPTOR
    return tuple((field.name, _writer(field)) for field in descriptor.fields)


def _writer(field: FieldDescriptor) -> Callable[[Any], Any]:
    if _is_map(field):
        return dict
    write = _element_writer(field)
    return (lambda values: [write(value) for value in values]) if field.is_repeated else write


def _element_writer(field: FieldDescriptor) -> Callable[[Any], Any]:
    if field.enum_type is not None:
        enum = field.enum_type
        return lambda value: _number(enum, value) if isinstance(value, str) else value
    if field.message_type is None:
        return lambda value: value
    message_type = cast("Any", field.message_type)._concrete_class  # the class that generated code has
    if message_type is Timestamp:
        return lambda value: value if isinstance(value, Message) else timestamp(value)
    if message_type is Duration:
        return lambda value: value if isinstance(value, Message) else duration(value)
    return lambda value: value if isinstance(value, Message) else to_proto(value, message_type)


@cache
def _readers(record_type: Any, descriptor: Any) -> tuple[tuple[str, Reader], ...]:
    hints = get_type_hints(record_type)
    known = descriptor.fields_by_name
    if not is_dataclass(record_type):  # a NamedTuple
        return tuple((name, _reader(hint, known[name], False, False)) for name, hint in hints.items() if name in known)
    return tuple(
        (
            item.name,
            _reader(hints[item.name], known[item.name], _has_default(item), bool(item.metadata.get("zero_is_unset"))),
        )
        for item in fields(record_type)
        if item.init and item.name in known
    )


def _has_default(item: Any) -> bool:
    return item.default is not MISSING or item.default_factory is not MISSING


def _reader(hint: Any, field: FieldDescriptor, has_default: bool, zero_is_unset: bool) -> Reader:
    name = field.name
    kind, is_optional = _plain(hint)
    if _is_map(field):
        return lambda message, _: dict(getattr(message, name))
    if field.is_repeated:
        return _list_reader(get_args(kind)[0], field)
    read = _element_reader(kind, field)
    absent = _UNSET if has_default else None

    def present(message: Any, path: str) -> Any:
        if message.HasField(name):
            return read(getattr(message, name), path)
        if has_default or is_optional:
            return absent
        if field.message_type is not None:
            raise _wrong(path, "is missing")
        return read(getattr(message, name), path)

    def plain(message: Any, path: str) -> Any:
        value = getattr(message, name)
        is_zero = not value
        if is_zero and (zero_is_unset or (field.enum_type is not None and has_default)):
            return _UNSET
        if is_zero and is_optional and (value == "" or field.enum_type is not None):
            return absent
        return read(value, path)

    return present if field.has_presence else plain


def _list_reader(kind: Any, field: FieldDescriptor) -> Reader:
    name, read = field.name, _element_reader(kind, field)
    return lambda message, path: tuple(
        read(value, f"{path}[{index}]") for index, value in enumerate(getattr(message, name))
    )


def _element_reader(kind: Any, field: FieldDescriptor) -> Reader:
    if field.enum_type is not None:
        return _enum_reader(kind, field.enum_type)
    if kind is datetime:
        return moment
    if kind is timedelta:
        return span
    if field.message_type is not None and (is_dataclass(kind) or hasattr(kind, "_fields")):
        record_type = cast("type[Any]", kind)
        return lambda value, path: from_proto(value, record_type, field=path)
    return lambda value, _: value


def _enum_reader(kind: Any, enum: EnumDescriptor) -> Reader:
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return lambda number, path: _word(kind, enum, number, path)
    if kind is int:
        return lambda number, _: number
    return lambda number, _: _name(enum, number)


def _plain(hint: Any) -> tuple[Any, bool]:
    """The kind of a field without NewType and None, and whether it may be None."""
    if isinstance(hint, NewType):
        return _plain(hint.__supertype__)
    if get_origin(hint) in (Union, types.UnionType):
        kinds = [kind for kind in get_args(hint) if kind is not types.NoneType]
        return _plain(kinds[0])[0], len(kinds) < len(get_args(hint))
    return hint, False


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)


def _prefix(enum: EnumDescriptor) -> str:
    """What all names of an enum begin with; its 0 is called UNSPECIFIED."""
    return enum.values_by_number[0].name.removesuffix("UNSPECIFIED")


@cache
def _numbers(enum: EnumDescriptor) -> Mapping[str, int]:
    start = _prefix(enum)
    return {value.name.removeprefix(start): value.number for value in enum.values if value.number}


def _number(enum: EnumDescriptor, word: str) -> int:
    number = _numbers(enum).get(word.upper().replace("-", "_"))
    if number is None:
        raise InvalidInput(f"{word!r} is not one of: {', '.join(_names(enum))}")
    return number


def _names(enum: EnumDescriptor) -> tuple[str, ...]:
    return tuple(_name(enum, number) for number in _numbers(enum).values())


def _name(enum: EnumDescriptor, number: int) -> str:
    value = enum.values_by_number.get(number)
    if value is None:
        return f"unknown-{number}"
    return value.name.removeprefix(_prefix(enum)).lower().replace("_", "-")


@cache
def _words(words: type[W], enum: EnumDescriptor) -> Mapping[int, W]:
    numbers = _numbers(enum)
    keyed = {word.value.upper().replace("-", "_"): word for word in words}
    return {numbers[key]: word for key, word in keyed.items() if key in numbers}


def _word(words: type[W], enum: EnumDescriptor, number: int, field: str) -> W:
    word = _words(words, enum).get(number)
    if word is None:
        names = ", ".join(enum.values_by_number[known].name for known in _words(words, enum))
        what = "is missing" if number == 0 else f"is {number}, which is not known"
        raise _wrong(field, f"{what}: must be one of {names}")
    return word


def _wrong(field: str, description: str) -> InvalidInput:
    return InvalidInput(f"{field} {description}", violations=[FieldViolation(field, description)])
