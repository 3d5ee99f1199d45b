"""Texts of callers: bounded, and never more than that is asked of them."""

from __future__ import annotations

from rekindle.errors import FieldViolation, InvalidInput

MAX_TEXT = 2000
MAX_TOOL = 100


def check_text(field: str, text: str, largest: int = MAX_TEXT) -> None:
    """InvalidInput for a text that is too long or holds control characters."""
    problem = ""
    if len(text) > largest:
        problem = f"must have at most {largest:,} characters"
    elif any(not character.isprintable() and character not in "\n\t" for character in text):
        problem = "must not hold control characters"
    if problem:
        raise InvalidInput(f"{field} {problem}", violations=[FieldViolation(field, problem)])
