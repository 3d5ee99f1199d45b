"""Tokens that callers show, and the lines by which services know them."""

from __future__ import annotations

import hashlib
import json
import re
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from rekindle.errors import FieldViolation, InvalidInput

#: What callers may be; the services' table says what each may do.
ROLE_NAMES = ("admin", "operator", "reviewer", "annotator", "integrator", "service", "viewer")
#: ``rkd_<id>_<secret>``: the id is public and finds the line, the secret has 256 random bits.
_TOKEN = re.compile(r"rkd_([0-9a-f]{12})_[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token that nobody has seen yet, and the line of the callers' file that makes it known."""

    token: str
    line: str


def create_token(subject: str, *, roles: Iterable[str], name: str = "", expires: datetime | None = None) -> NewToken:
    """A token for `subject`. Only its digest is in the line, so the file gives nobody access.

    SHA-256 is enough for that: slow hashes protect what people think up, and 256 random bits cannot be guessed.
    """
    roles = sorted(set(roles))
    _check(subject, roles, expires)
    token_id, secret = secrets.token_hex(6), secrets.token_hex(32)
    token = f"rkd_{token_id}_{secret}"
    entry: dict[str, object] = {
        "token": token_id,
        "sha256": token_digest(token),
        "subject": subject,
        "name": name or subject,
        "roles": roles,
    }
    if expires is not None:
        entry["expires"] = expires.isoformat(timespec="seconds")
    return NewToken(token, json.dumps(entry, ensure_ascii=False))


def token_id(token: str) -> str | None:
    """The public part of a token; None for what is no token of this kind."""
    match = _TOKEN.fullmatch(token)
    return match[1] if match else None


def token_digest(token: str) -> str:
    """SHA-256 of the whole token, hexadecimal."""
    return hashlib.sha256(token.encode()).hexdigest()


def _check(subject: str, roles: list[str], expires: datetime | None) -> None:
    unknown = [role for role in roles if role not in ROLE_NAMES]
    wrong: list[FieldViolation] = []
    if not subject.strip():
        wrong.append(FieldViolation("subject", "is empty: name who will use the token"))
    if not roles or unknown:
        what = f"{', '.join(unknown)} is not known" if unknown else "is missing"
        wrong.append(FieldViolation("roles", f"{what}: choose from {', '.join(ROLE_NAMES)}"))
    if expires is not None and expires.tzinfo is None:
        wrong.append(FieldViolation("expires", "has no time zone"))
    if wrong:
        raise InvalidInput("; ".join(f"{item.field} {item.description}" for item in wrong), violations=wrong)
