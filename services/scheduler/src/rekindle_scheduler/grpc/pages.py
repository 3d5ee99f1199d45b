"""Opaque page tokens: where a list goes on, bound to what was asked for."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from typing import Any

from google.protobuf.message import Message
from rekindle.errors import FieldViolation, InvalidInput

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000


def page_size(requested: int) -> int:
    """At least 1; 0 asks for the default. InvalidInput for a negative one; large ones are cut."""
    if requested < 0:
        raise InvalidInput(
            "page_size must not be negative", violations=[FieldViolation("page_size", "must be 0 or more")]
        )
    return min(requested or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def next_token(request: Any, place: list[Any]) -> str:
    """The token of the page behind `place`."""
    text = json.dumps([_digest(request), place], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def place_of(request: Any, first: list[Any]) -> list[Any]:
    """Where the request's page begins: behind this; `first` without a token.

    InvalidInput for a token that is none, or that belongs to another list.
    """
    token = str(request.page_token)
    if not token:
        return first
    try:
        padded = token + "=" * (-len(token) % 4)
        digest, place = json.loads(base64.urlsafe_b64decode(padded.encode("ascii", "strict")))
    except (ValueError, TypeError, binascii.Error, UnicodeError):
        raise _unusable("is no token of this service") from None
    if digest != _digest(request):
        raise _unusable("belongs to a list with other filters: begin again without it")
    kinds = [type(item) for item in first]
    if not isinstance(place, list) or [type(item) for item in place] != kinds:
        raise _unusable("is no token of this service")
    return place


def _digest(request: Any) -> str:
    """Of what is asked for, without where in it and how much."""
    plain: Message = type(request)()
    plain.CopyFrom(request)
    plain.ClearField("page_token")  # pyright: ignore[reportArgumentType]
    plain.ClearField("page_size")  # pyright: ignore[reportArgumentType]
    name = str(plain.DESCRIPTOR.full_name).encode()
    return hashlib.sha256(name + plain.SerializeToString(deterministic=True)).hexdigest()[:16]


def _unusable(why: str) -> InvalidInput:
    return InvalidInput(f"page_token {why}", violations=[FieldViolation("page_token", why)])
