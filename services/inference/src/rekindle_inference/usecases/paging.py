"""Pages of lists: how long they are, and where the next one begins."""

from __future__ import annotations

from rekindle.errors import InvalidInput

from rekindle_inference.usecases.checks import wrong_field

DEFAULT_PAGE = 50


def page_limit(page_size: int, *, most: int) -> int:
    """Entries of one page: what was asked for, within limits."""
    if page_size < 0:
        raise wrong_field("page_size", "must not be negative")
    return min(page_size, most) if page_size else DEFAULT_PAGE


def page_number(page_token: str) -> int | None:
    """The number that a token of ours stands for; None for the first page."""
    if not page_token:
        return None
    if not (page_token.isascii() and page_token.isdigit() and len(page_token) < 19):
        raise wrong_token()
    return int(page_token)


def wrong_token() -> InvalidInput:
    """What to raise for a token that is none of ours."""
    return wrong_field("page_token", "must be the next_page_token of an answer before, or empty")
