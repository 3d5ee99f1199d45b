"""Rows against objects: missing, damaged and orphaned ones are named; young ones are left alone."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta

import pytest
from rekindle.errors import Cancelled
from rekindle_servicekit.objects import MemoryObjects
from rekindle_servicekit.verification import Expected, Finding, Summary, VerifyOptions, compare_objects
from rekindle_servicekit.workers import Cancellation

LATER = datetime.now(UTC) + timedelta(hours=25)
SOUND, OTHER = b"voxels", b"other voxels"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def objects() -> MemoryObjects:
    """One sound object, one whose bytes are not those that its name promises, one that nothing refers to."""
    store = MemoryObjects()
    store.put("canonical/sound", SOUND)
    store.put("canonical/damaged", OTHER)
    store.put("canonical/orphan", SOUND)
    store.put("weights/of-others", SOUND)
    return store


EXPECTED = [
    Expected(key="canonical/sound", row="volumes/1", sha256=sha(SOUND)),
    Expected(key="canonical/sound", row="volumes/2", sha256=sha(SOUND)),
    Expected(key="canonical/damaged", row="volumes/3", project_id="p", sha256=sha(SOUND)),
    Expected(key="canonical/missing", row="volumes/4", project_id="p", sha256=sha(SOUND), remedy="send it again"),
]


def check(objects: MemoryObjects, *, now: datetime = LATER, **options: object) -> tuple[dict[str, Finding], Summary]:
    """Findings by where they are, and the summary."""
    summary = Summary()
    given = VerifyOptions(**options)  # type: ignore[arg-type]
    found = compare_objects(objects, EXPECTED, ["canonical/"], given, summary, Cancellation(), now=now)
    return {finding.where: finding for finding in found}, summary


def test_missing_and_orphaned_objects_are_found_without_reading(objects: MemoryObjects) -> None:
    """Existence alone is looked at: damage is not seen, no byte is read, and folders not named are left out."""
    found, summary = check(objects)

    assert {where: finding.kind.value for where, finding in found.items()} == {
        "canonical/missing": "missing",
        "canonical/orphan": "orphaned",
    }
    assert found["canonical/missing"].message == "volumes/4 refers to it and it is not stored"
    assert (found["canonical/missing"].project_id, found["canonical/missing"].remedy) == ("p", "send it again")
    assert (summary.objects, summary.bytes_read) == (4, 0)


def test_deep_reads_every_expected_object_once(objects: MemoryObjects) -> None:
    """Damage is found by the digest; an object that two rows share is read once."""
    found, summary = check(objects, deep=True)

    assert found["canonical/damaged"].kind == "damaged"
    assert "canonical/sound" not in found
    assert summary.bytes_read == len(SOUND) + len(OTHER)


def test_young_objects_are_uploads_under_way(objects: MemoryObjects) -> None:
    """What nothing refers to is an orphan only after the grace period; what is missing is missing at once."""
    found, _ = check(objects, now=datetime.now(UTC))

    assert set(found) == {"canonical/missing"}


def test_objects_known_elsewhere_are_no_orphans(objects: MemoryObjects) -> None:
    """Another service may refer to what this one does not."""
    found, _ = check(objects, known_objects=frozenset({"canonical/orphan"}))

    assert set(found) == {"canonical/missing"}


def test_a_caller_who_has_gone_stops_the_check(objects: MemoryObjects) -> None:
    """The next object is not looked at any more."""
    cancellation = Cancellation()
    cancellation.set()
    with pytest.raises(Cancelled):
        list(compare_objects(objects, EXPECTED, [], VerifyOptions(), Summary(), cancellation, now=LATER))
