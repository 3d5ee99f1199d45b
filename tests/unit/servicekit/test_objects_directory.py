"""What only the directory side of Objects promises."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from rekindle.errors import AlreadyExists
from rekindle_servicekit.objects import DirectoryObjects, MemoryObjects, PrefixedObjects


def test_objects_survive_reopening(tmp_path: Path) -> None:
    """Another instance on the same directory sees what the first one stored."""
    DirectoryObjects(tmp_path).put("volumes/a", b"x")
    assert b"x" == DirectoryObjects(tmp_path).get("volumes/a")


def test_interrupted_write_leaves_nothing_visible(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A failure before the object is complete leaves neither a key nor a staged file."""
    objects = DirectoryObjects(tmp_path)

    def fail(descriptor: int) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        objects.put("volumes/a", b"x")
    monkeypatch.undo()
    assert [] == list(objects.list())
    assert [] == [path for path in tmp_path.rglob("*") if path.is_file()]


def test_staged_files_are_not_listed(tmp_path: Path) -> None:
    """What a killed writer left in staging is no object."""
    objects = DirectoryObjects(tmp_path)
    (tmp_path / ".staging" / "left-over").write_bytes(b"half")
    assert [] == list(objects.list())


def test_what_a_killed_writer_left_is_removed_later(tmp_path: Path) -> None:
    """Nobody could find it, and it may be a patient's; what is being written stays."""
    DirectoryObjects(tmp_path)
    staging = tmp_path / ".staging"
    for name, age_s in (("left-over", 3700), ("under-way", 3500)):
        (staging / name).write_bytes(b"half")
        moment = time.time() - age_s
        os.utime(staging / name, (moment, moment))
    DirectoryObjects(tmp_path)
    assert ["under-way"] == [path.name for path in staging.iterdir()]


def test_key_below_an_object_is_refused(tmp_path: Path) -> None:
    """A file cannot be a folder too: a key that goes through an object, or is a folder, is refused."""
    objects = DirectoryObjects(tmp_path)
    objects.put("a/b", b"x")
    with pytest.raises(AlreadyExists):
        objects.put("a/b/c", b"y")
    with pytest.raises(AlreadyExists):
        objects.put("a", b"y")
    assert ["a/b"] == list(objects.list())


def test_prefixes_keep_two_installations_apart() -> None:
    """Two installations share a store without seeing each other, also where one's name begins the other's."""
    store = MemoryObjects()
    first, second = PrefixedObjects(store, "site-1"), PrefixedObjects(store, "site-10/")
    first.put("volumes/a", b"1")
    second.put("volumes/a", b"10")
    assert (b"1", b"10") == (first.get("volumes/a"), second.get("volumes/a"))
    assert ["volumes/a"] == list(first.list())
    assert ["site-1/volumes/a", "site-10/volumes/a"] == list(store.list())
