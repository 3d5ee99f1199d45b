"""Records as JSON and back, by their annotations, for columns and objects that are read as a whole.

A record is a dataclass or a NamedTuple. A field's metadata may say `stored: False` (read again each time) or
`later: True` (unknown to the release before: stored only where it differs from its default).
"""

from __future__ import annotations

import types
from collections.abc import Callable, Mapping
from dataclasses import Field, fields, is_dataclass
from datetime import datetime, timedelta
from enum import Enum
from functools import cache
from typing import Any, NewType, TypeVar, Union, cast, get_args, get_origin, get_type_hints

T = TypeVar("T")


def _value_of(word: Enum) -> Any:
    return word.value


def encode(value: Any, *, word: Callable[[Enum], Any] = _value_of) -> Any:
    """`value` in JSON's types; moments as ISO 8601, durations in seconds.

    `word` spells the words of enumerations, by their values unless a service has stored another spelling.
    """
    if isinstance(value, Enum):
        return word(value)
    if is_dataclass(value) and not isinstance(value, type):
        stored = [item.name for item in fields(value) if _is_stored(item, value)]
        return {name: encode(getattr(value, name), word=word) for name in stored}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if hasattr(value, "_asdict"):  # a NamedTuple is a record, not a list
        return encode(cast("Any", value)._asdict(), word=word)
    if isinstance(value, Mapping):
        return {str(key): encode(item, word=word) for key, item in cast("Mapping[Any, Any]", value).items()}
    if isinstance(value, (list, tuple)):
        return [encode(item, word=word) for item in cast("list[Any]", value)]
    return value


def decode(kind: type[T], value: Any) -> T:
    """What `encode` made of a value of this kind.

    Fields that were not stored take their defaults; those that a newer release has stored are passed over, so that
    one can go back to this one.
    """
    return cast("T", _decode(kind, value))


def decode_all(kind: type[T], values: Any) -> tuple[T, ...]:
    """A list of them."""
    return tuple(decode(kind, value) for value in values)


def _decode(kind: Any, value: Any) -> Any:
    if isinstance(kind, NewType):
        return _decode(kind.__supertype__, value)
    origin = get_origin(kind)
    if origin in (Union, types.UnionType):
        return _decode_union(get_args(kind), value)
    if origin is tuple:
        return tuple(_decode(get_args(kind)[0], item) for item in value)
    if origin is not None and issubclass(origin, Mapping):
        return {key: _decode(get_args(kind)[1], item) for key, item in value.items()}
    if is_dataclass(kind) or hasattr(kind, "_fields"):
        known = _hints(kind)
        return cast("Any", kind)(**{name: _decode(known[name], value[name]) for name in value if name in known})
    if kind is datetime:
        return datetime.fromisoformat(value)
    if kind is timedelta:
        return timedelta(seconds=value)
    if isinstance(kind, type) and issubclass(kind, (Enum, float)):
        return kind(value)
    return value


def _decode_union(kinds: tuple[Any, ...], value: Any) -> Any:
    if value is None:
        return None
    candidates = [kind for kind in kinds if kind is not types.NoneType]
    # Records of one union differ in their fields, so what is there tells which it is.
    records = [kind for kind in candidates if is_dataclass(kind) and isinstance(value, Mapping)]
    known = [len(set(cast("Mapping[str, Any]", value)) & set(_hints(kind))) for kind in records]
    return _decode(records[known.index(max(known))] if records else candidates[0], value)


def _is_stored(item: Field[Any], value: Any) -> bool:
    """Fields without those that are read again each time; later ones only where they are set."""
    if not item.metadata.get("stored", True):
        return False
    return not item.metadata.get("later") or getattr(value, item.name) != item.default


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
