"""Names of files and folders that come from a service."""

from __future__ import annotations

import re

from rekindle.errors import InvalidInput

_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,199}")


def file_name(given_id: str) -> str:
    """An id as the name of a file or folder. InvalidInput (UNUSABLE_NAME) for one that could lead somewhere else.

    Services make ids that cannot; a project that was taken in from elsewhere might have others.
    """
    if _PLAIN.fullmatch(given_id) is None:
        raise InvalidInput(
            "the service sends an id that cannot be the name of a file: nothing was written; ask who runs it where the "
            "project comes from",
            reason="UNUSABLE_NAME",
        )
    return given_id
