"""What every implementation of Objects does alike; the test module that takes these tests defines `objects`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rekindle.errors import AlreadyExists, InvalidInput, NotFound
from rekindle_servicekit.objects import Objects


def test_get_returns_what_was_put(objects: Objects) -> None:
    """Bytes come back as they went in, also none and all byte values."""
    objects.put("volumes/a", bytes(range(256)))
    objects.put("volumes/empty", b"")
    assert bytes(range(256)) == objects.get("volumes/a")
    assert b"" == objects.get("volumes/empty")


def test_put_again_with_same_bytes_changes_nothing(objects: Objects) -> None:
    """A repeated put is idempotent."""
    objects.put("canonical/a", b"voxels")
    objects.put("canonical/a", b"voxels")
    assert b"voxels" == objects.get("canonical/a")
    assert ["canonical/a"] == list(objects.list())


def test_modified_at_is_when_it_was_first_stored(objects: Objects) -> None:
    """The moment of the first put, which a later one does not change; NotFound for an absent key."""
    before = datetime.now(UTC)
    objects.put("canonical/a", b"voxels")
    stored = objects.modified_at("canonical/a")
    objects.put("canonical/a", b"voxels")
    assert stored == objects.modified_at("canonical/a")
    assert abs(stored - before) < timedelta(seconds=5)
    objects.delete("canonical/a")
    with pytest.raises(NotFound):
        objects.modified_at("canonical/a")


@pytest.mark.parametrize("other", [b"other!", b"", b"voxels and more"])
def test_put_of_other_bytes_is_refused(objects: Objects, other: bytes) -> None:
    """An object never changes: other bytes under its key raise AlreadyExists and leave it as it is."""
    objects.put("canonical/a", b"voxels")
    with pytest.raises(AlreadyExists, match="canonical/a") as caught:
        objects.put("canonical/a", other)
    assert "OBJECT_DIFFERS" == caught.value.reason
    assert b"voxels" == objects.get("canonical/a")


def test_put_file_stores_the_file_and_leaves_it(objects: Objects, tmp_path: Path) -> None:
    """A file larger than one copying step is stored whole, stays where it is, and is immutable too."""
    source = tmp_path / "source.bin"
    source.write_bytes(b"0123456789" * 300_000)
    objects.put_file("weights/a", source)
    objects.put_file("weights/a", source)
    assert b"0123456789" * 300_000 == objects.get("weights/a")
    assert source.exists()
    source.write_bytes(b"changed")
    with pytest.raises(AlreadyExists):
        objects.put_file("weights/a", source)


@pytest.mark.parametrize(
    ("offset", "length", "expected"),
    [(0, 4, b"0123"), (3, 2, b"34"), (8, 10, b"89"), (10, 5, b""), (50, 5, b""), (2, 0, b"")],
)
def test_read_range_is_cut_at_the_end(objects: Objects, offset: int, length: int, expected: bytes) -> None:
    """A range gives the bytes that exist in it."""
    objects.put("volumes/a", b"0123456789")
    assert expected == objects.read_range("volumes/a", offset, length)


@pytest.mark.parametrize(("offset", "length"), [(-1, 2), (0, -1)])
def test_negative_range_is_refused(objects: Objects, offset: int, length: int) -> None:
    """A negative offset or length is InvalidInput, not a read from the end."""
    objects.put("volumes/a", b"0123456789")
    with pytest.raises(InvalidInput):
        objects.read_range("volumes/a", offset, length)


def test_open_streams_the_bytes(objects: Objects) -> None:
    """A stream is read piece by piece and ends."""
    objects.put("volumes/a", b"0123456789")
    with objects.open("volumes/a") as stream:
        assert [b"01234567", b"89", b""] == [stream.read(8), stream.read(8), stream.read(8)]


def test_size_and_exists(objects: Objects) -> None:
    """Size counts bytes; a key exists from its put to its delete; a part of a key is no object."""
    assert not objects.exists("runs/r1/spec.json")
    objects.put("runs/r1/spec.json", b"{}")
    assert objects.exists("runs/r1/spec.json")
    assert not objects.exists("runs/r1")
    assert 2 == objects.size("runs/r1/spec.json")


def test_what_is_not_there_is_not_found(objects: Objects) -> None:
    """Every way of reading an object that does not exist raises NotFound and names the key."""
    objects.put("runs/r1/spec.json", b"{}")
    for key in ("runs/r2", "runs/r1", "runs/r1/spec.json/deeper"):
        with pytest.raises(NotFound, match=key):
            objects.get(key)
        with pytest.raises(NotFound, match=key):
            objects.read_range(key, 0, 1)
        with pytest.raises(NotFound, match=key):
            objects.open(key)
        with pytest.raises(NotFound, match=key):
            objects.size(key)


def test_list_is_sorted_and_by_text_prefix(objects: Objects) -> None:
    """Listing gives keys in order of text; a prefix may end within a part of the key."""
    keys = ["runs/r1/1/result.json", "runs/r1/spec.json", "runs/r10/spec.json", "volumes/a", "volumes/a-b"]
    for key in reversed(keys):
        objects.put(key, b"x")
    assert keys == list(objects.list())
    assert keys[:3] == list(objects.list("runs/r1"))
    assert keys[:2] == list(objects.list("runs/r1/"))
    assert keys[3:] == list(objects.list("volumes/a"))
    assert [] == list(objects.list("runs/r2/"))


def test_list_is_sorted_as_text_not_as_folders(objects: Objects) -> None:
    """A dash comes before a slash, so `a-b/1` before `a/1`, and a dot before it too."""
    keys = ["x/a-b/1", "x/a.b/1", "x/a/1", "x/a/2", "x/a0/1"]
    for key in keys:
        objects.put(key, b"x")
    assert keys == list(objects.list("x/"))


def test_delete_frees_the_key(objects: Objects) -> None:
    """A deleted object is gone, deleting again is harmless, and the key may be used anew."""
    objects.put("runs/r1/a", b"1")
    objects.put("runs/r1/b", b"2")
    objects.delete("runs/r1/a")
    objects.delete("runs/r1/a")
    objects.delete("runs/r1")
    assert ["runs/r1/b"] == list(objects.list("runs/"))
    objects.put("runs/r1/a", b"other")
    assert b"other" == objects.get("runs/r1/a")


def test_deleted_key_leaves_its_parts_free(objects: Objects) -> None:
    """After the last object below a part of a key is gone, that part is a key like any other."""
    objects.put("runs/r1/a", b"1")
    objects.delete("runs/r1/a")
    objects.put("runs", b"2")
    assert ["runs"] == list(objects.list())


@pytest.mark.parametrize(
    "key",
    [
        *("", "/etc/passwd", "../x", "a/../b", "a/..", "a//b", "a/", "./a", "a/./b", ".staging/x"),
        *("-a", "A", "_a", "a b", "a\\b", "a\nb", "a\n", "ä", "aé", "a\x00b", "a" * 513),
    ],
)
def test_bad_keys_are_refused_everywhere(objects: Objects, key: str, tmp_path: Path) -> None:
    """A key that could leave the store or be ambiguous is InvalidInput in every method."""
    source = tmp_path / "source"
    source.write_bytes(b"x")
    calls: list[Callable[[], object]] = [
        lambda: objects.put(key, b"x"),
        lambda: objects.put_file(key, source),
        lambda: objects.get(key),
        lambda: objects.read_range(key, 0, 1),
        lambda: objects.open(key),
        lambda: objects.exists(key),
        lambda: objects.size(key),
        lambda: objects.delete(key),
        lambda: objects.presign_put(key, 60),
        lambda: objects.presign_get(key, 60),
    ]
    for call in calls:
        with pytest.raises(InvalidInput):
            call()


@pytest.mark.parametrize("prefix", ["/", "../", ".staging", "a//", "/etc"])
def test_bad_prefixes_are_refused(objects: Objects, prefix: str) -> None:
    """Listing cannot look outside the store either."""
    with pytest.raises(InvalidInput):
        objects.list(prefix)


def test_one_of_many_writers_wins(objects: Objects) -> None:
    """Of eight threads that put other bytes under one key, one succeeds and its bytes stay."""
    outcomes: list[bytes] = []
    barrier = threading.Barrier(8)

    def write(data: bytes) -> None:
        barrier.wait()
        try:
            objects.put("runs/r1/result.json", data)
        except AlreadyExists:
            return
        outcomes.append(data)

    threads = [threading.Thread(target=write, args=(b"%d" % number * 1000,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == len(outcomes)
    assert outcomes[0] == objects.get("runs/r1/result.json")


_PART = st.from_regex(r"[a-z0-9][A-Za-z0-9._-]{0,8}", fullmatch=True)


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(parts=st.lists(_PART, min_size=1, max_size=4), data=st.binary(max_size=64))
def test_every_allowed_key_works(objects: Objects, parts: list[str], data: bytes) -> None:
    """Whatever key the rules allow can be written, listed, read and removed."""
    key = "/".join(parts)
    objects.put(key, data)
    assert [key] == list(objects.list(key))
    assert data == objects.get(key)
    objects.delete(key)
    assert not objects.exists(key)
