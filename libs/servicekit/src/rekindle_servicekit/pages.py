"""Pages of a list: opaque tokens that say where the list continues, bound to its filter."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message
from rekindle.errors import FieldViolation, InvalidInput

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Page(Generic[T]):
    """Some items of a list."""

    items: Sequence[T]
    #: Token of the next page; empty on the last one.
    next_token: str


class Paging:
    """What a list request asks for: how many items, and behind which place.

    `first` is the place before the first item, a list of texts and numbers. Read `limit` rows behind `after`, then
    `page` cuts them. InvalidInput for a negative `page_size`, for a token that is not one of ours, and for one that
    belongs to a list with other filters. `default_size` and `max_size` are for lists of large messages.
    """

    def __init__(
        self, request: Any, first: list[Any], *, default_size: int = DEFAULT_PAGE_SIZE, max_size: int = MAX_PAGE_SIZE
    ) -> None:
        self.size = _size(int(request.page_size), default_size, max_size)
        #: Rows to read: one more than the page holds tells whether there is another page.
        self.limit = self.size + 1
        self._digest = _digest(request)
        #: Place behind which the page begins.
        self.after = self._place(str(request.page_token), first)

    def page(self, rows: Sequence[T], place: Callable[[T], list[Any]]) -> Page[T]:
        """The page that `rows` begin with; `place` says where a row stands."""
        items = rows[: self.size]
        return Page(items, self._token(place(items[-1])) if len(rows) > self.size else "")

    def _token(self, place: list[Any]) -> str:
        text = json.dumps([self._digest, place], separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    def _place(self, token: str, first: list[Any]) -> list[Any]:
        if not token:
            return first
        try:
            padded = token + "=" * (-len(token) % 4)
            digest, place = json.loads(base64.urlsafe_b64decode(padded.encode("ascii", "strict")))
        except (ValueError, TypeError, binascii.Error, UnicodeError):
            raise _wrong("page_token", "is not a token of this service: begin with the first page") from None
        if digest != self._digest:
            raise _wrong("page_token", "belongs to a list with other filters: begin with the first page")
        kinds = [type(item) for item in first]
        if not isinstance(place, list) or [type(item) for item in place] != kinds:
            raise _wrong("page_token", "is not a token of this service: begin with the first page")
        return place


def _size(requested: int, default_size: int, max_size: int) -> int:
    if requested < 0:
        raise _wrong("page_size", "must not be negative")
    return min(requested or default_size, max_size)


def _digest(request: Any) -> str:
    """Digest of what is asked for, without the place in it and the size."""
    plain: Message = type(request)()
    plain.CopyFrom(request)
    plain.ClearField("page_token")  # pyright: ignore[reportArgumentType]
    plain.ClearField("page_size")  # pyright: ignore[reportArgumentType]
    name = str(plain.DESCRIPTOR.full_name).encode()
    return hashlib.sha256(name + plain.SerializeToString(deterministic=True)).hexdigest()[:16]


def _wrong(field: str, description: str) -> InvalidInput:
    return InvalidInput(f"{field} {description}", violations=[FieldViolation(field, description)])
