"""A service's part of a project's archive: one tar of rows and objects, the same bytes for the same state.

``tables/<name>.jsonl`` (a row a line), ``objects/<key>``, and ``manifest.json`` last, which names everything before it
with its size and SHA-256.
"""

from __future__ import annotations

import hashlib
import json
import tarfile
from collections.abc import Collection, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from rekindle.errors import IntegrityError, InvalidInput, NotFound

from rekindle_servicekit.objects import Objects, validate_key
from rekindle_servicekit.workers import Cancellation

FORMAT = 1
CHUNK_BYTES = 1024 * 1024
_MANIFEST = "manifest.json"
_MAX_MANIFEST_BYTES = 256 * 1024 * 1024
_END = b"\0" * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A file of the archive."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What the archive holds."""

    format: int
    service: str
    project_id: str
    members: tuple[Member, ...]

    @property
    def tables(self) -> dict[str, Member]:
        """By the tables' names."""
        return {_inner(member.name): member for member in self.members if member.name.startswith("tables/")}

    @property
    def objects(self) -> dict[str, Member]:
        """By the objects' keys."""
        return {
            member.name.removeprefix("objects/"): member
            for member in self.members
            if member.name.startswith("objects/")
        }


def write_archive(
    service: str,
    project_id: str,
    tables: list[tuple[str, IO[bytes]]],
    objects: Objects,
    keys: Collection[str],
    cancellation: Cancellation,
) -> Iterator[bytes]:
    """The archive in chunks; an object that has gone meanwhile is left out. Tables are read from their beginning."""
    members: list[Member] = []
    for name, rows in tables:
        size = rows.seek(0, 2)
        rows.seek(0)
        yield from _member(f"tables/{name}.jsonl", size, rows, members, cancellation)
    for key in sorted(keys):
        try:
            size, stream = objects.size(key), objects.open(key)
        except NotFound:
            continue
        with stream:
            yield from _member(f"objects/{key}", size, stream, members, cancellation)
    manifest = Manifest(format=FORMAT, service=service, project_id=project_id, members=tuple(members))
    data = json.dumps(asdict(manifest), sort_keys=True, separators=(",", ":")).encode()
    yield _header(_MANIFEST, len(data))
    yield data + b"\0" * (-len(data) % tarfile.BLOCKSIZE)
    yield _END


def _member(
    name: str, size: int, stream: IO[bytes], members: list[Member], cancellation: Cancellation
) -> Iterator[bytes]:
    yield _header(name, size)
    sha256, left = hashlib.sha256(), size
    while left:
        cancellation.raise_if_set()
        chunk = stream.read(min(CHUNK_BYTES, left))
        if not chunk:
            raise IntegrityError(f"{name.rpartition('/')[0]} ended before its size: try again")
        sha256.update(chunk)
        left -= len(chunk)
        yield chunk
    padding = -size % tarfile.BLOCKSIZE
    if padding:
        yield b"\0" * padding
    members.append(Member(name=name, size=size, sha256=sha256.hexdigest()))


def _header(name: str, size: int) -> bytes:
    """Without owner and time, so that the same state gives the same bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = size, 0o644
    return info.tobuf(tarfile.PAX_FORMAT)


class ArchiveReader:
    """An archive in a file. Nothing is written by the names in it, and nothing believed before `verify`."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        try:
            self._tar = tarfile.open(fileobj=self._file, mode="r:")  # noqa: SIM115 - reads the file, closed by `close`
            self._infos = self._plain_members()
            self.manifest = self._read_manifest()
        except (tarfile.TarError, ValueError, KeyError, TypeError, EOFError, OverflowError, RecursionError) as error:
            self.close()
            raise bad_archive("it is not a part of a project's archive") from error
        except InvalidInput:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def verify(self, cancellation: Cancellation) -> None:
        """Every member is named, there, and has its digest. InvalidInput (BAD_ARCHIVE), IntegrityError."""
        named = {member.name: member for member in self.manifest.members}
        if len(named) != len(self.manifest.members) or set(named) != set(self._infos) - {_MANIFEST}:
            raise bad_archive("its manifest names other files than it holds")
        for key in self.manifest.objects:
            validate_key(key)
        for name, member in named.items():
            if self._infos[name].size != member.size or self._digest(name, cancellation) != member.sha256:
                raise IntegrityError(
                    "a file of the archive does not have the SHA-256 that its manifest names: get the archive again",
                    reason="DIGEST_MISMATCH",
                )

    def open(self, name: str) -> IO[bytes]:
        stream = self._tar.extractfile(self._infos[name])
        assert stream is not None
        return stream

    def copy(self, key: str, path: Path) -> None:
        """Write an object's bytes to a file."""
        with self.open(f"objects/{key}") as stream, path.open("wb") as target:
            while chunk := stream.read(CHUNK_BYTES):
                target.write(chunk)

    def _plain_members(self) -> dict[str, tarfile.TarInfo]:
        infos: dict[str, tarfile.TarInfo] = {}
        for info in self._tar:
            # Names lead nowhere, as nothing is unpacked by them; anything but plain files is not ours. A sparse one
            # may be a few bytes here and as many terabytes of nothing once it is read.
            is_plain = info.type == tarfile.REGTYPE and not info.issparse()
            leads_out = info.name.startswith("/") or ".." in info.name
            if not is_plain or leads_out or info.name in infos:
                raise bad_archive("it holds something else than plain files with names of their own")
            infos[info.name] = info
        return infos

    def _read_manifest(self) -> Manifest:
        if self._infos[_MANIFEST].size > _MAX_MANIFEST_BYTES:
            raise bad_archive("its manifest is too large")
        raw: dict[str, Any] = json.loads(self.open(_MANIFEST).read())
        if raw["format"] != FORMAT:
            raise InvalidInput(
                f"the archive has format {raw['format']!r:.20} and this service reads {FORMAT}: bring the service up "
                "to date",
                reason="NEWER_ARCHIVE",
            )
        members = tuple(
            Member(name=str(m["name"]), size=int(m["size"]), sha256=str(m["sha256"])) for m in raw["members"]
        )
        return Manifest(
            format=raw["format"], service=str(raw["service"]), project_id=str(raw["project_id"]), members=members
        )

    def _digest(self, name: str, cancellation: Cancellation) -> str:
        sha256 = hashlib.sha256()
        try:
            with self.open(name) as stream:
                while chunk := stream.read(CHUNK_BYTES):
                    cancellation.raise_if_set()
                    sha256.update(chunk)
        except tarfile.TarError:
            raise bad_archive("it ends before one of its files does") from None
        return sha256.hexdigest()


def bad_archive(why: str) -> InvalidInput:
    """What to raise for an archive that cannot be taken."""
    return InvalidInput(f"the archive cannot be imported: {why}", reason="BAD_ARCHIVE")


def _inner(name: str) -> str:
    return name.removeprefix("tables/").removesuffix(".jsonl")
