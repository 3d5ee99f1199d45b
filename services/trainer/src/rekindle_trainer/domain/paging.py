"""Page tokens: where a list of runs goes on, opaque to callers."""

from __future__ import annotations

import base64
import binascii
import json
from datetime import datetime

from rekindle.errors import FieldViolation, InvalidInput

DEFAULT_PAGE_SIZE = 50
MAX_PAGE_SIZE = 500

#: (created_at, run_id) of the last run of the page before.
Position = tuple[datetime, str]


def page_limit(page_size: int) -> int:
    """How many to return where `page_size` are asked for; 0 leaves it to the service."""
    if page_size < 0:
        raise _wrong("page_size", "must not be negative")
    return min(page_size or DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE)


def encode_token(project_id: str, position: Position) -> str:
    """A token for the page after `position`."""
    content = json.dumps([project_id, position[0].isoformat(), position[1]])
    return base64.urlsafe_b64encode(content.encode()).decode()


def decode_token(project_id: str, token: str) -> Position | None:
    """The position that a token stands for, None for the first page; InvalidInput for other tokens."""
    if not token:
        return None
    try:
        project, created_at, run_id = json.loads(base64.b64decode(token.encode(), altchars=b"-_", validate=True))
        position = datetime.fromisoformat(created_at), str(run_id)
    except (ValueError, TypeError, binascii.Error):
        raise _wrong("page_token", "is none that this service gave: begin with the first page") from None
    if project != project_id or position[0].tzinfo is None:
        raise _wrong("page_token", "belongs to another list: begin with the first page")
    return position


def _wrong(field: str, description: str) -> InvalidInput:
    return InvalidInput(f"{field} {description}", violations=[FieldViolation(field, description)])
