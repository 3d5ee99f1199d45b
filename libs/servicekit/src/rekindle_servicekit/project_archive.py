"""Exporting and importing what a service keeps of a project."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import sqlalchemy as sa
from rekindle.errors import AlreadyExists, InvalidInput, RekindleError

from rekindle_servicekit import idempotency
from rekindle_servicekit.archive import ArchiveReader, bad_archive, write_archive
from rekindle_servicekit.database import database_now, hold_names, read, write
from rekindle_servicekit.objects import MemoryObjects, Objects
from rekindle_servicekit.principal import Principal
from rekindle_servicekit.project_rows import ProjectTable, Row, check_parents, dump_rows, insert_rows, parse_rows
from rekindle_servicekit.workers import Cancellation

_METHOD = "ImportProject"
_DIGEST = re.compile(r"[0-9a-f]{64}")
#: Each takes a place in the database's table of locks.
_HELD_AT_ONCE = 100
_BY_CONTENT = re.compile(r"(?:volumes|canonical|weights)/([0-9a-f]{64})|packages/([0-9a-f]{64})/manifest\.json")
#: Errors of code that reads rows which it has not written.
_UNREADABLE = (LookupError, ValueError, TypeError, AttributeError, AssertionError, ArithmeticError, RecursionError)
Tables = Mapping[str, Sequence[Row]]


def _nothing(_connection: sa.Connection, _project_id: str) -> None:
    """For services that have nothing more to check."""


def _no_keys(_tables: Tables) -> set[str]:
    return set()


def _no_folders(_tables: Tables) -> list[str]:
    return []


def _as_they_are(_connection: sa.Connection, tables: Tables) -> Tables:
    return tables


def _nothing_stored(_tables: Tables, _cancellation: Cancellation) -> None:
    """For services that have nothing to prove of objects."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProjectArchive:
    """What a service exports and imports of a project."""

    service: str
    engine: sa.Engine
    #: Parents before children.
    tables: Sequence[ProjectTable]
    #: None for a service without objects.
    objects: Objects | None = None
    #: Keys of the objects that rows refer to: they must be in the archive, or stored already.
    keys_of: Callable[[Tables], Collection[str]] = _no_keys
    #: Folders of which everything belongs to the rows.
    folders_of: Callable[[Tables], Sequence[str]] = _no_folders
    #: Refuses an export that would not make sense now; NotFound where there is no such project.
    before_export: Callable[[sa.Connection, str], None] = _nothing
    #: Called once the objects are stored and before any row is: whether they can be used.
    prove: Callable[[Tables, Cancellation], None] = _nothing_stored
    #: Fits the rows to what is here already, in the transaction that adds them.
    adapt: Callable[[sa.Connection, Tables], Tables] = _as_they_are
    #: Reads the rows back in the transaction that adds them, as the service does; an error refuses them.
    read_back: Callable[[sa.Connection, str], None] = _nothing

    def export(self, project_id: str, cancellation: Cancellation) -> Generator[bytes]:
        """The archive in chunks, rows as of one moment."""
        with ExitStack() as stack:
            files: list[tuple[str, IO[bytes]]] = []
            tables: dict[str, list[Row]] = {}
            with read(self.engine) as connection:
                self.before_export(connection, project_id)
                for what in self.tables:
                    target = stack.enter_context(tempfile.TemporaryFile())
                    tables[what.table.name] = dump_rows(connection, what, project_id, target)
                    files.append((what.table.name, target))
            objects = self.objects or MemoryObjects()
            keys = set(self.keys_of(tables))
            for folder in self.folders_of(tables):
                keys |= set(objects.list(folder))
            yield from write_archive(self.service, project_id, files, objects, keys, cancellation)

    def import_(
        self,
        principal: Principal,
        project_id: str,
        request_id: str,
        sha256: str,
        path: Path,
        cancellation: Cancellation,
    ) -> tuple[int, int]:
        """Take an archive in, whose SHA-256 was checked; rows and objects. Once per request id.

        Every digest is verified before an object is stored, and every row is added in one transaction.
        """
        with read(self.engine) as connection:
            answered = idempotency.remember(connection, principal, _METHOD, request_id, sha256)
            if answered is None:
                self._refuse_existing(connection, project_id)
        if answered is not None:
            rows, objects = answered.decode().split()
            return int(rows), int(objects)
        archive = ArchiveReader(path)
        try:
            tables = self._verified(archive, project_id, cancellation)
            self._store(archive, path.parent, archive.manifest.objects, cancellation)
            self.prove(tables, cancellation)
            counts = sum(len(rows) for rows in tables.values()), len(archive.manifest.objects)
            with write(self.engine) as connection:
                self._insert(connection, project_id, tables)
                answer = f"{counts[0]} {counts[1]}".encode()
                now = database_now(connection)
                idempotency.store(connection, principal, _METHOD, request_id, sha256, answer, now=now)
            self._keep_stored(archive, path.parent)
        finally:
            archive.close()
        return counts

    def _verified(self, archive: ArchiveReader, project_id: str, cancellation: Cancellation) -> dict[str, list[Row]]:
        manifest = archive.manifest
        if (manifest.service, manifest.project_id) != (self.service, project_id):
            raise bad_archive(f"it is not the {self.service}'s part of this project's archive")
        archive.verify(cancellation)
        known = {what.table.name: what for what in self.tables}
        if set(manifest.tables) - set(known):
            raise bad_archive("it has tables that this service does not know: bring the service up to date")
        tables = {
            name: parse_rows(archive.open(f"tables/{name}.jsonl"), known[name], project_id)
            for name in known
            if name in manifest.tables
        }
        for what in self.tables:
            check_parents(what, tables.get(what.table.name, []), tables)
        self._check_objects(archive, tables)
        return tables

    def _check_objects(self, archive: ArchiveReader, tables: Tables) -> None:
        try:
            needed, folders = set(self.keys_of(tables)), tuple(self.folders_of(tables))
        except _UNREADABLE as error:
            raise _unreadable() from error
        for key, member in archive.manifest.objects.items():
            by_content = _BY_CONTENT.fullmatch(key)
            if by_content and member.sha256 not in by_content.groups():
                raise bad_archive("an object is named by another digest than its own")
            if key not in needed and not (folders and key.startswith(folders)):
                raise bad_archive("it holds objects that none of its rows refers to")
        missing = [key for key in sorted(needed) if key not in archive.manifest.objects]
        if any(self.objects is None or not self.objects.exists(key) for key in missing):
            raise bad_archive("it lacks objects that its rows refer to")

    def _store(self, archive: ArchiveReader, folder: Path, keys: Collection[str], cancellation: Cancellation) -> None:
        for number, key in enumerate(keys):
            cancellation.raise_if_set()
            assert self.objects is not None
            copied = folder / f"object-{number}"
            try:
                archive.copy(key, copied)
                self.objects.put_file(key, copied)
            finally:
                copied.unlink(missing_ok=True)

    def _keep_stored(self, archive: ArchiveReader, folder: Path) -> None:
        """Store again what was erased with another project's rows before these were there to refer to it.

        From now on they do. A purge of the same bytes that has not seen them yet is waited for.
        """
        keys = list(archive.manifest.objects)
        for first in range(0, len(keys), _HELD_AT_ONCE):
            part = keys[first : first + _HELD_AT_ONCE]
            with write(self.engine) as connection:
                hold_names(connection, (digest for key in part for digest in _DIGEST.findall(key)))
                gone = [key for key in part if self.objects is not None and not self.objects.exists(key)]
                self._store(archive, folder, gone, Cancellation())

    def _insert(self, connection: sa.Connection, project_id: str, tables: Tables) -> None:
        self._refuse_existing(connection, project_id)
        tables = self.adapt(connection, tables)
        for what in self.tables:
            insert_rows(connection, what, tables.get(what.table.name, []))
        try:
            self.read_back(connection, project_id)
        except RekindleError:
            raise
        except _UNREADABLE as error:
            raise _unreadable() from error

    def _refuse_existing(self, connection: sa.Connection, project_id: str) -> None:
        for what in self.tables:
            if "project_id" in what.table.columns:
                found = sa.select(sa.literal(1)).select_from(what.table).where(what.table.c.project_id == project_id)
                if connection.execute(found.limit(1)).first() is not None:
                    raise AlreadyExists(
                        "a project with this id is here already: an import never changes one", reason="PROJECT_EXISTS"
                    )


def _unreadable() -> InvalidInput:
    return bad_archive("its rows cannot be read: they come from another release, or were changed")
