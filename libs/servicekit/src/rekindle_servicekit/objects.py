"""Objects: the port to immutable bytes by key, and its embedded side, a directory."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import re
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, Protocol

from rekindle.errors import AlreadyExists, DependencyUnavailable, InvalidInput, NotFound

MAX_KEY_LENGTH = 512
_KEY = re.compile(r"[a-z0-9][A-Za-z0-9._/-]*")
_PUBLISH_TRIES = 100
_FULL = {errno.ENOSPC, errno.EDQUOT}
_CHUNK_BYTES = 1024 * 1024
#: No key starts with a dot, so nothing in here can be taken for an object.
_STAGING = ".staging"
#: Age after which a staged file without new bytes is abandoned.
_ABANDONED_S = 3600.0


def validate_key(key: str) -> str:
    """Return `key`; InvalidInput where it could leave the store or name two things at once."""
    if len(key) > MAX_KEY_LENGTH:
        raise InvalidInput(f"object key of {len(key)} characters: at most {MAX_KEY_LENGTH} are allowed")
    segments_ok = all(part not in {"", ".", ".."} for part in key.split("/"))
    if not segments_ok or _KEY.fullmatch(key) is None:
        raise InvalidInput(
            f"object key {key[:80]!r} is not allowed: use a-z, A-Z, 0-9 and . _ / -, begin with a-z or 0-9, "
            "and leave no part empty, '.' or '..'"
        )
    return key


def validate_prefix(prefix: str) -> str:
    if prefix:
        validate_key(prefix.removesuffix("/"))
    return prefix


def validate_range(offset: int, length: int) -> None:
    if offset < 0 or length < 0:
        raise InvalidInput(f"range of {length} bytes at {offset}: neither may be negative")


class Objects(Protocol):
    """Immutable bytes by key. Every method raises InvalidInput for a key that is not allowed."""

    def put(self, key: str, data: bytes) -> None:
        """Store `data`, durably and all or nothing.

        The same bytes again change nothing; AlreadyExists where other bytes are there.
        """
        ...

    def put_file(self, key: str, path: Path) -> None:
        """Like `put`, from a file that stays where it is and is never held in memory whole."""
        ...

    def get(self, key: str) -> bytes:
        """All bytes; NotFound."""
        ...

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        """At most `length` bytes from `offset`, fewer or none at the end; NotFound."""
        ...

    def open(self, key: str) -> BinaryIO:
        """A stream to read from and close; NotFound."""
        ...

    def exists(self, key: str) -> bool: ...

    def size(self, key: str) -> int:
        """Bytes; NotFound."""
        ...

    def modified_at(self, key: str) -> datetime:
        """When it was stored, with time zone, by the store's clock; NotFound."""
        ...

    def list(self, prefix: str = "") -> Iterator[str]:
        """Keys that begin with `prefix` (text, not necessarily a whole part), sorted."""
        ...

    def delete(self, key: str) -> None:
        """Remove it; nothing happens where it does not exist."""
        ...

    def presign_put(self, key: str, expires_s: float) -> str | None:
        """A URL to which anybody can send the object by one HTTP PUT meanwhile; None where there is no such way.

        What is sent there is not known to be whole or right: its reader checks it.
        """
        ...

    def presign_get(self, key: str, expires_s: float) -> str | None:
        """A URL from which anybody can fetch the object meanwhile; None where there is no such way."""
        ...


class DirectoryObjects:
    """Objects as files below a directory of one machine.

    What a process that was killed has left half written is removed once it is opened an hour later or more.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.absolute()
        self._staging = self.root / _STAGING
        self._staging.mkdir(parents=True, exist_ok=True)
        self._remove_abandoned()

    def put(self, key: str, data: bytes) -> None:
        self._put_stream(key, io.BytesIO(data))

    def put_file(self, key: str, path: Path) -> None:
        with path.open("rb") as source:
            self._put_stream(key, source)

    def get(self, key: str) -> bytes:
        with self.open(key) as stream:
            return stream.read()

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        validate_range(offset, length)
        with self.open(key) as stream:
            stream.seek(offset)
            return stream.read(length)

    def open(self, key: str) -> BinaryIO:
        try:
            return self._path(key).open("rb")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            raise not_found(key) from None

    def exists(self, key: str) -> bool:
        return self._path(key).is_file()

    def size(self, key: str) -> int:
        return self._stat(key).st_size

    def modified_at(self, key: str) -> datetime:
        return datetime.fromtimestamp(self._stat(key).st_mtime, UTC)

    def list(self, prefix: str = "") -> Iterator[str]:
        folder = self.root / validate_prefix(prefix).rpartition("/")[0]
        keys = (path.relative_to(self.root).as_posix() for path in _files_below(folder))
        return iter(sorted(key for key in keys if key.startswith(prefix) and not key.startswith(".")))

    def delete(self, key: str) -> None:
        path = self._path(key)
        # A key that is a part of longer keys is a folder here, and no object.
        if path.is_file():
            path.unlink(missing_ok=True)
            self._remove_empty_folders(path.parent)

    def presign_put(self, key: str, expires_s: float) -> str | None:
        validate_key(key)
        return None  # a directory is not served over HTTP

    def presign_get(self, key: str, expires_s: float) -> str | None:
        validate_key(key)
        return None

    def _remove_abandoned(self) -> None:
        before = time.time() - _ABANDONED_S
        for path in self._staging.iterdir():
            with suppress(OSError):  # just published, or another user's
                if path.stat().st_mtime < before:
                    path.unlink()

    def _path(self, key: str) -> Path:
        return self.root / validate_key(key)

    def _stat(self, key: str) -> os.stat_result:
        path = self._path(key)
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            raise not_found(key) from None
        if not stat.S_ISREG(found.st_mode):
            raise not_found(key)
        return found

    def _put_stream(self, key: str, source: BinaryIO) -> None:
        try:
            self._stage_and_publish(key, self._path(key), source)
        except OSError as error:
            if error.errno not in _FULL:
                raise
            raise DependencyUnavailable(
                "the object store is full: make room in it; try again", reason="OBJECT_STORE_FULL", retry_after_s=30.0
            ) from error

    def _stage_and_publish(self, key: str, target: Path, source: BinaryIO) -> None:
        handle, name = tempfile.mkstemp(dir=self._staging)
        staged = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                while chunk := source.read(_CHUNK_BYTES):
                    stream.write(chunk)
                stream.flush()
                os.fsync(stream.fileno())
            self._publish(staged, target, key)
        finally:
            staged.unlink(missing_ok=True)

    def _publish(self, staged: Path, target: Path, key: str) -> None:
        for _ in range(_PUBLISH_TRIES):
            try:
                self._make_folder(target.parent)
                # A hard link, unlike a rename, never replaces what another writer has put there meanwhile.
                os.link(staged, target)
            except FileNotFoundError:
                continue  # a delete has just removed the folder because it was empty
            except FileExistsError:
                if not target.is_file() or _digest(target) != _digest(staged):
                    raise other_bytes(key) from None
            except NotADirectoryError:
                raise other_bytes(key) from None
            _sync_folder(target.parent)
            return
        raise DependencyUnavailable(f"object {key!r} could not be stored: its folder keeps disappearing")

    def _make_folder(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make_folder(folder.parent)
        folder.mkdir(exist_ok=True)
        _sync_folder(folder.parent)

    def _remove_empty_folders(self, folder: Path) -> None:
        """An empty folder would keep its own name from being used as a key."""
        with suppress(OSError):
            while folder != self.root:
                folder.rmdir()
                folder = folder.parent
        if folder.is_dir():
            _sync_folder(folder)


class MemoryObjects:
    """Objects in a dictionary: for tests."""

    def __init__(self) -> None:
        self._objects: dict[str, bytes] = {}
        self._stored: dict[str, datetime] = {}

    def put(self, key: str, data: bytes) -> None:
        if self._objects.setdefault(validate_key(key), bytes(data)) != data:
            raise other_bytes(key)
        self._stored.setdefault(key, datetime.now(UTC))

    def put_file(self, key: str, path: Path) -> None:
        self.put(key, path.read_bytes())

    def get(self, key: str) -> bytes:
        try:
            return self._objects[validate_key(key)]
        except KeyError:
            raise not_found(key) from None

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        validate_range(offset, length)
        return self.get(key)[offset : offset + length]

    def open(self, key: str) -> BinaryIO:
        return io.BytesIO(self.get(key))

    def exists(self, key: str) -> bool:
        return validate_key(key) in self._objects

    def size(self, key: str) -> int:
        return len(self.get(key))

    def modified_at(self, key: str) -> datetime:
        self.get(key)
        return self._stored[key]

    def list(self, prefix: str = "") -> Iterator[str]:
        validate_prefix(prefix)
        return iter(sorted(key for key in self._objects if key.startswith(prefix)))

    def delete(self, key: str) -> None:
        self._objects.pop(validate_key(key), None)
        self._stored.pop(key, None)

    def presign_put(self, key: str, expires_s: float) -> str | None:
        validate_key(key)
        return None  # it ends with the process

    def presign_get(self, key: str, expires_s: float) -> str | None:
        validate_key(key)
        return None


class PrefixedObjects:
    """The part of a store below `prefix`, so that two installations can share a bucket."""

    def __init__(self, objects: Objects, prefix: str) -> None:
        self._objects = objects
        self._prefix = validate_key(prefix.rstrip("/")) + "/"

    def put(self, key: str, data: bytes) -> None:
        self._objects.put(self._full(key), data)

    def put_file(self, key: str, path: Path) -> None:
        self._objects.put_file(self._full(key), path)

    def get(self, key: str) -> bytes:
        return self._objects.get(self._full(key))

    def read_range(self, key: str, offset: int, length: int) -> bytes:
        return self._objects.read_range(self._full(key), offset, length)

    def open(self, key: str) -> BinaryIO:
        return self._objects.open(self._full(key))

    def exists(self, key: str) -> bool:
        return self._objects.exists(self._full(key))

    def size(self, key: str) -> int:
        return self._objects.size(self._full(key))

    def modified_at(self, key: str) -> datetime:
        return self._objects.modified_at(self._full(key))

    def list(self, prefix: str = "") -> Iterator[str]:
        keys = self._objects.list(self._prefix + validate_prefix(prefix))
        return (key.removeprefix(self._prefix) for key in keys)

    def delete(self, key: str) -> None:
        self._objects.delete(self._full(key))

    def presign_put(self, key: str, expires_s: float) -> str | None:
        return self._objects.presign_put(self._full(key), expires_s)

    def presign_get(self, key: str, expires_s: float) -> str | None:
        return self._objects.presign_get(self._full(key), expires_s)

    def _full(self, key: str) -> str:
        return self._prefix + validate_key(key)


def not_found(key: str) -> NotFound:
    return NotFound(f"there is no object {key!r}", reason="OBJECT_NOT_FOUND", metadata={"key": key})


def other_bytes(key: str) -> AlreadyExists:
    return AlreadyExists(
        f"object {key!r} exists with other bytes and is immutable: use another key",
        reason="OBJECT_DIFFERS",
        metadata={"key": key},
    )


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, _, names in os.walk(folder):
        for name in names:
            yield Path(parent, name)


def _digest(path: Path) -> bytes:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _sync_folder(folder: Path) -> None:
    """Make a new or removed name durable, not only the bytes that it stands for."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
