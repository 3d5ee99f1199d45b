"""Whether rows and objects agree: what is missing, orphaned, damaged."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from rekindle.errors import NotFound

from rekindle_servicekit.objects import Objects
from rekindle_servicekit.workers import Cancellation

DEFAULT_GRACE = timedelta(hours=24)
_CHUNK_BYTES = 1024 * 1024
_RESTORE = "restore the object store to the moment of the database's backup or later"


class FindingKind(StrEnum):
    MISSING = "missing"
    ORPHANED = "orphaned"
    DAMAGED = "damaged"
    INCONSISTENT = "inconsistent"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that is not as it should be."""

    kind: FindingKind
    #: Object key, or table and id of the row.
    where: str
    #: Empty where no one project is concerned.
    project_id: str = ""
    message: str
    remedy: str


@dataclass(slots=True, kw_only=True)
class Summary:
    """How much was looked at."""

    rows: int = 0
    objects: int = 0
    bytes_read: int = 0
    found: dict[FindingKind, int] = field(default_factory=dict)
    #: Keys in folders that services share which this one refers to.
    shared_objects: list[str] = field(default_factory=list)

    def count(self, finding: Finding) -> None:
        self.found[finding.kind] = self.found.get(finding.kind, 0) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """An object that a row refers to."""

    key: str
    #: The row, as in "volumes/3f2a".
    row: str
    project_id: str = ""
    #: SHA-256 of the bytes; None where nothing says it.
    sha256: str | None = None
    #: Advice where it is missing, beyond restoring it.
    remedy: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifyOptions:
    deep: bool = False
    grace: timedelta = DEFAULT_GRACE
    #: Keys that another service refers to.
    known_objects: frozenset[str] = frozenset()


def compare_objects(
    objects: Objects,
    expected: Iterable[Expected],
    folders: Collection[str],
    options: VerifyOptions,
    summary: Summary,
    cancellation: Cancellation,
    *,
    now: datetime,
) -> Iterator[Finding]:
    """Every expected object is looked at once, then every object in `folders` (``"volumes/"``) that is not expected.

    Keys are remembered, so memory grows with the number of objects and not with their size.
    """
    looked_at: set[str] = set()
    for item in expected:
        cancellation.raise_if_set()
        if item.key not in looked_at:
            looked_at.add(item.key)
            summary.objects += 1
            yield from _look_at(objects, item, options, summary, cancellation)
    known = looked_at | options.known_objects
    for folder in folders:
        for key in objects.list(folder):
            cancellation.raise_if_set()
            if key not in known:
                summary.objects += 1
                yield from _orphan(objects, key, options, now)


def _look_at(
    objects: Objects, item: Expected, options: VerifyOptions, summary: Summary, cancellation: Cancellation
) -> Iterator[Finding]:
    try:
        if options.deep and item.sha256 is not None:
            digest = _digest(objects, item.key, summary, cancellation)
            is_sound = digest == item.sha256
        else:
            objects.size(item.key)
            is_sound = True
    except NotFound:
        yield Finding(
            kind=FindingKind.MISSING,
            where=item.key,
            project_id=item.project_id,
            message=f"{item.row} refers to it and it is not stored",
            remedy=item.remedy or _RESTORE,
        )
        return
    if not is_sound:
        yield Finding(
            kind=FindingKind.DAMAGED,
            where=item.key,
            project_id=item.project_id,
            message=f"its bytes do not have the SHA-256 that {item.row} names",
            remedy=f"remove it, then {item.remedy or _RESTORE}",
        )


def _orphan(objects: Objects, key: str, options: VerifyOptions, now: datetime) -> Iterator[Finding]:
    try:
        age = now - objects.modified_at(key)
    except NotFound:  # removed meanwhile
        return
    if age >= options.grace:
        yield Finding(
            kind=FindingKind.ORPHANED,
            where=key,
            message=f"nothing refers to it, and it is {age.total_seconds() / 3600:.0f} hours old",
            remedy="nothing is lost by it but space; it may be removed",
        )


def _digest(objects: Objects, key: str, summary: Summary, cancellation: Cancellation) -> str:
    sha256 = hashlib.sha256()
    with objects.open(key) as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            cancellation.raise_if_set()
            sha256.update(chunk)
            summary.bytes_read += len(chunk)
    return sha256.hexdigest()
