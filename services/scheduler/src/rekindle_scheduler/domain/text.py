"""Texts: how numbers read, and what callers may write."""

from __future__ import annotations

from typing import Final

from rekindle.errors import FieldViolation, InvalidInput

MAX_TEXT: Final = 2000
MAX_TOOL: Final = 100


def counted(number: int, noun: str) -> str:
    """1 case, 2 cases."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def check_text(field: str, text: str, largest: int = MAX_TEXT) -> None:
    """InvalidInput for a text that is too long or holds control characters."""
    problem = ""
    if len(text) > largest:
        problem = f"must have at most {largest:,} characters"
    elif any(not character.isprintable() and character not in "\n\t" for character in text):
        problem = "must not hold control characters"
    if problem:
        raise InvalidInput(f"{field} {problem}", violations=[FieldViolation(field, problem)])
