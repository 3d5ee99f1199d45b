"""The callers' file: who may call, known by a token's digest or by the name in a client certificate.

One JSON object a line; blank lines and lines that begin with ``#`` are skipped::

    {"token": "<id>", "sha256": "<hex>", "subject": "ann", "name": "Ann", "roles": ["annotator"]}
    {"certificate": "scheduler.example", "subject": "scheduler", "name": "Scheduler", "roles": ["service"]}

Both kinds may have ``expires`` (ISO 8601 with a time zone). Several lines may share a subject: they are one
caller, so a token can be replaced before it expires.
"""

from __future__ import annotations

import hmac
import json
import logging
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rekindle.errors import InvalidInput, Unauthenticated
from rekindle.tokens import ROLE_NAMES, token_digest, token_id
from rekindle.watched_files import WatchedFiles

from rekindle_servicekit.principal import Principal

_log = logging.getLogger(__name__)

#: Issuer of the principals in the file; subjects are its own.
ISSUER = "callers"
_KEYS = {"token", "sha256", "certificate", "subject", "name", "roles", "expires"}
_DIGEST = re.compile(r"[0-9a-f]{64}")
#: Digest to compare an unknown token with, so that the comparison takes as long as for a known one.
_NO_DIGEST = "0" * 64


@dataclass(frozen=True, slots=True)
class Entry:
    """One line of the file."""

    principal: Principal
    digest: str = ""
    expires: datetime | None = None


@dataclass(frozen=True, slots=True)
class Callers:
    """The content of a callers' file."""

    tokens: Mapping[str, Entry] = field(default_factory=dict)
    certificates: Mapping[str, Entry] = field(default_factory=dict)

    def by_token(self, token: str, now: datetime) -> Principal:
        """The caller who shows this token; Unauthenticated."""
        entry = self.tokens.get(token_id(token) or "")
        digest = token_digest(token)
        if not hmac.compare_digest(digest, entry.digest if entry else _NO_DIGEST) or entry is None:
            raise Unauthenticated(
                "the token is not known: check that it is complete, or ask an administrator for a new one",
                reason="UNKNOWN_TOKEN",
            )
        if entry.expires is not None and entry.expires <= now:
            raise Unauthenticated("the token has expired: ask an administrator for a new one", reason="TOKEN_EXPIRED")
        return entry.principal

    def by_certificate(self, names: tuple[str, ...], now: datetime) -> Principal | None:
        """The caller whose certificate has one of these names; None where the file does not know any."""
        for name in names:
            entry = self.certificates.get(name)
            if entry is None:
                continue
            if entry.expires is not None and entry.expires <= now:
                raise Unauthenticated(
                    "this certificate's line in callers_file has expired: ask an administrator to renew it",
                    reason="CERTIFICATE_EXPIRED",
                )
            return entry.principal
        return None


class CallersFile:
    """A callers' file that is read again when it changes. A file that is wrong later leaves the last good one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._files = WatchedFiles([path])
        self._callers = read_callers(path)

    def current(self) -> Callers:
        """What the file says now."""
        if self._files.have_changed():
            with self._lock:
                self._reload()
        return self._callers

    def _reload(self) -> None:
        try:
            self._callers = read_callers(self._path)
        except InvalidInput as error:
            _log.error("the callers of before stay: %s", error.message, extra={"action": "callers.not_reloaded"})
            self._files.were_of_no_use()
        else:
            known = len(self._callers.tokens) + len(self._callers.certificates)
            _log.info("the callers' file was read again: %d entries", known, extra={"action": "callers.reloaded"})


def read_callers(path: Path) -> Callers:
    """InvalidInput names the line that is wrong, without what is in it."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise InvalidInput(f"callers_file: {path} cannot be read: {why}", reason="CALLERS_FILE") from None
    tokens: dict[str, Entry] = {}
    certificates: dict[str, Entry] = {}
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        wrong = _wrongness(path, number)
        kind, key, entry = _entry(line, wrong)
        known = tokens if kind == "token" else certificates
        if key in known:
            raise wrong(f"its {kind} is in another line too")
        known[key] = entry
    return Callers(tokens, certificates)


def _wrongness(path: Path, number: int) -> Callable[[str], InvalidInput]:
    return lambda what: InvalidInput(f"callers_file: {path}, line {number}: {what}", reason="CALLERS_FILE")


def _entry(line: str, wrong: Callable[[str], InvalidInput]) -> tuple[str, str, Entry]:
    try:
        raw = json.loads(line)
    except ValueError:
        raise wrong("is no JSON object") from None
    if not isinstance(raw, dict):
        raise wrong("is no JSON object")
    if unknown := raw.keys() - _KEYS:
        raise wrong(f"knows no {', '.join(sorted(map(repr, unknown)))}")
    if ("token" in raw) == ("certificate" in raw):
        raise wrong("needs either token (with sha256) or certificate")
    kind = "token" if "token" in raw else "certificate"
    key = _text(raw, kind, wrong)
    digest = str(raw.get("sha256", ""))
    if bool(_DIGEST.fullmatch(digest)) != (kind == "token"):
        raise wrong("sha256 must be the 64 hexadecimal digits of the token's digest, and belongs to tokens only")
    subject = _text(raw, "subject", wrong)
    name = _text(raw, "name", wrong) if "name" in raw else subject
    principal = Principal(issuer=ISSUER, subject=subject, display_name=name, roles=_roles(raw, wrong))
    return kind, key, Entry(principal, digest, _expires(raw, wrong))


def _text(raw: Mapping[str, Any], key: str, wrong: Callable[[str], InvalidInput]) -> str:
    value = raw.get(key)
    if not isinstance(value, str) or not value.strip():
        raise wrong(f"{key} must be a text that is not empty")
    return value


def _roles(raw: Mapping[str, Any], wrong: Callable[[str], InvalidInput]) -> frozenset[str]:
    roles = raw.get("roles")
    if not isinstance(roles, list) or not roles or not all(role in ROLE_NAMES for role in roles):
        raise wrong(f"roles must be a list of some of {', '.join(ROLE_NAMES)}")
    return frozenset(roles)


def _expires(raw: Mapping[str, Any], wrong: Callable[[str], InvalidInput]) -> datetime | None:
    if raw.get("expires") is None:
        return None
    try:
        moment = datetime.fromisoformat(str(raw["expires"]))
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise wrong("expires must be a moment with a time zone, such as 2030-01-31T00:00:00+00:00")
    return moment.astimezone(UTC)
