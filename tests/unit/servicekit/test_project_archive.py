"""A project's archive: the same there as here, and nothing of a wrong one is taken in."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from rekindle.errors import AlreadyExists, IntegrityError, InvalidInput, RekindleError
from rekindle_servicekit.database import UtcDateTime, make_engine, read, write
from rekindle_servicekit.idempotency import define_requests
from rekindle_servicekit.objects import MemoryObjects
from rekindle_servicekit.principal import Principal
from rekindle_servicekit.project_archive import ProjectArchive
from rekindle_servicekit.project_rows import ProjectTable
from rekindle_servicekit.workers import Cancellation

PRINCIPAL = Principal(issuer="i", subject="operator", display_name="Operator")
PROJECT = "p1"
VOXELS = b"voxels"
DIGEST = hashlib.sha256(VOXELS).hexdigest()
KEY = f"canonical/{DIGEST}"

metadata = sa.MetaData()
define_requests(metadata)
volumes = sa.Table(
    "volumes",
    metadata,
    sa.Column("volume_id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("other_id", sa.Text),
    sa.Column("made", UtcDateTime, nullable=False),
    sa.Column("details", sa.JSON),
    sa.Column("data", sa.LargeBinary),
    sa.Column("share", sa.Float),
    sa.Column("flag", sa.Boolean, nullable=False, server_default=sa.false()),
)
marks = sa.Table(
    "marks",
    metadata,
    sa.Column("volume_id", sa.ForeignKey("volumes.volume_id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
)


def service(folder: Path) -> ProjectArchive:
    """A service with two tables and an object store, all empty."""
    engine = make_engine(f"sqlite:///{folder}/test.sqlite3")
    metadata.create_all(engine)
    own = sa.select(volumes.c.volume_id).where(volumes.c.project_id == sa.bindparam("project"))

    def of_project(project: str) -> sa.ColumnElement[bool]:
        return marks.c.volume_id.in_(own.params(project=project))

    return ProjectArchive(
        service="test",
        engine=engine,
        tables=(
            ProjectTable(table=volumes, of_project=lambda project: volumes.c.project_id == project),
            ProjectTable(table=marks, of_project=of_project, parent=("volume_id", "volumes", "volume_id")),
        ),
        objects=MemoryObjects(),
        keys_of=lambda tables: {f"canonical/{row['digest']}" for row in tables.get("volumes", ())},
    )


@pytest.fixture
def here(tmp_path: Path) -> Iterator[ProjectArchive]:
    """Two projects, one object."""
    (tmp_path / "here").mkdir()
    archive = service(tmp_path / "here")
    with write(archive.engine) as connection:
        rows = [
            {
                "volume_id": f"{project}-{number}",
                "project_id": project,
                "digest": DIGEST,
                "made": datetime(2026, 3, number, 12, 30, 1, 250, tzinfo=UTC),
                "details": {"ä": [1, None, 0.1]},
                "data": b"\x00\xff",
                "share": 0.1 + 0.2,
                "flag": number == 1,
            }
            for project in (PROJECT, "p2")
            for number in (1, 2)
        ]
        connection.execute(sa.insert(volumes), rows)
        connection.execute(sa.insert(marks), [{"volume_id": row["volume_id"], "number": 7} for row in rows])
    assert archive.objects is not None
    archive.objects.put(KEY, VOXELS)
    yield archive
    archive.engine.dispose()


@pytest.fixture
def there(tmp_path: Path) -> Iterator[ProjectArchive]:
    (tmp_path / "there").mkdir()
    archive = service(tmp_path / "there")
    yield archive
    archive.engine.dispose()


def export(archive: ProjectArchive) -> bytes:
    return b"".join(archive.export(PROJECT, Cancellation()))


def take(archive: ProjectArchive, data: bytes, folder: Path, request_id: str = "r") -> tuple[int, int]:
    inbox = folder / "inbox"
    inbox.mkdir(exist_ok=True)
    path = inbox / "archive.tar"
    path.write_bytes(data)
    sha256 = hashlib.sha256(data).hexdigest()
    try:
        return archive.import_(PRINCIPAL, PROJECT, request_id, sha256, path, Cancellation())
    finally:
        assert list(inbox.iterdir()) == [path]  # no temporary file is left


def rows_of(archive: ProjectArchive) -> int:
    with read(archive.engine) as connection:
        return sum(
            connection.execute(sa.select(sa.func.count()).select_from(table)).scalar_one() for table in (volumes, marks)
        )


def test_the_archive_there_is_the_archive_here(here: ProjectArchive, there: ProjectArchive, tmp_path: Path) -> None:
    """Moments, floats, JSON and bytes come through; the other project stays; exporting again gives the same bytes."""
    data = export(here)

    assert data == export(here)
    assert take(there, data, tmp_path) == (4, 1)
    assert export(there) == data
    assert rows_of(there) == 4
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
    assert names == ["tables/volumes.jsonl", "tables/marks.jsonl", f"objects/{KEY}", "manifest.json"]


def test_a_repeated_import_changes_nothing(here: ProjectArchive, there: ProjectArchive, tmp_path: Path) -> None:
    """The same request answers the same; another one finds the project there."""
    data = export(here)
    first = take(there, data, tmp_path)

    assert take(there, data, tmp_path) == first
    with pytest.raises(AlreadyExists) as caught:
        take(there, data, tmp_path, "another")
    assert caught.value.reason == "PROJECT_EXISTS"
    assert rows_of(there) == 4


def test_what_is_erased_while_it_is_taken_in_is_stored_again(
    here: ProjectArchive, there: ProjectArchive, tmp_path: Path
) -> None:
    """Another project with the same bytes lost them before this one's rows referred to them."""
    objects = there.objects
    assert objects is not None
    erasing = replace(there, prove=lambda _tables, _cancellation: objects.delete(KEY))
    assert take(erasing, export(here), tmp_path) == (4, 1)
    assert objects.get(KEY) == VOXELS


def remade(data: bytes, change: Callable[[dict[str, bytes]], Any], *, honest: bool = True) -> bytes:
    """The archive with its files changed; `honest` makes the manifest fit them."""
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        files = {info.name: tar.extractfile(info).read() for info in tar}  # type: ignore[union-attr]
    manifest = json.loads(files.pop("manifest.json"))
    infos = change(files) or []
    if honest:
        manifest["members"] = [
            {"name": name, "size": len(content), "sha256": hashlib.sha256(content).hexdigest()}
            for name, content in files.items()
        ]
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, content in {**files, "manifest.json": json.dumps(manifest).encode()}.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in infos:
            tar.addfile(info)
    return target.getvalue()


def edited(files: dict[str, bytes], **values: Any) -> None:
    """Values of the first volume's row; None removes one."""
    first, *rest = files["tables/volumes.jsonl"].splitlines()
    row = {**json.loads(first), **values}
    row = {name: value for name, value in row.items() if value is not ...}
    files["tables/volumes.jsonl"] = b"".join(line + b"\n" for line in [json.dumps(row).encode(), *rest])


def renamed(files: dict[str, bytes], volume_id: str) -> None:
    """Another id for the first volume, wherever it stands."""
    for name in ("tables/volumes.jsonl", "tables/marks.jsonl"):
        files[name] = files[name].replace(f'"{PROJECT}-1"'.encode(), json.dumps(volume_id).encode())


def link(kind: bytes, name: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, "/etc/passwd"
    return info


WRONG: dict[str, tuple[Callable[[dict[str, bytes]], Any], str, bool]] = {
    "a symbolic link": (lambda files: [link(tarfile.SYMTYPE, "objects/x")], "BAD_ARCHIVE", True),
    "a hard link": (lambda files: [link(tarfile.LNKTYPE, "objects/x")], "BAD_ARCHIVE", True),
    "a device": (lambda files: [link(tarfile.CHRTYPE, "objects/x")], "BAD_ARCHIVE", True),
    "a way out": (lambda files: files.update({"objects/../../x": b""}), "BAD_ARCHIVE", True),
    "an absolute name": (lambda files: files.update({"/tmp/x": b""}), "BAD_ARCHIVE", True),
    "a name twice": (lambda files: [tarfile.TarInfo("tables/volumes.jsonl")], "BAD_ARCHIVE", True),
    "an object of nobody": (lambda files: files.update({f"objects/canonical/{'0' * 64}": b""}), "BAD_ARCHIVE", True),
    "a false digest in a name": (lambda files: files.update({f"objects/{KEY}": b"evil"}), "BAD_ARCHIVE", True),
    "an object that is missing": (lambda files: files.pop(f"objects/{KEY}") and None, "BAD_ARCHIVE", True),
    "a changed byte": (lambda files: files.update({f"objects/{KEY}": b"voxelz"}), "DIGEST_MISMATCH", False),
    "a changed row": (lambda files: edited(files, share=0.5), "DIGEST_MISMATCH", False),
    "an unnamed file": (lambda files: files.update({"objects/x": b""}), "BAD_ARCHIVE", False),
    "a table of another release": (lambda files: files.update({"tables/new.jsonl": b""}), "BAD_ARCHIVE", True),
    "a column of another release": (lambda files: edited(files, colour="red"), "NEWER_ARCHIVE", True),
    "a column that is missing": (lambda files: edited(files, digest=...), "BAD_ARCHIVE", True),
    "another project's row": (lambda files: edited(files, project_id="p2"), "BAD_ARCHIVE", True),
    "a moment without a zone": (lambda files: edited(files, made="2026-03-01T12:00:00"), "BAD_ARCHIVE", True),
    "a number for a text": (lambda files: edited(files, digest=7), "BAD_ARCHIVE", True),
    "a text for a number": (lambda files: edited(files, share="much"), "BAD_ARCHIVE", True),
    "an id that leads out of a folder": (lambda files: renamed(files, "../x"), "BAD_ARCHIVE", True),
    "an id of another service's that leads out": (lambda files: edited(files, other_id="a/b"), "BAD_ARCHIVE", True),
    "an id that is empty": (lambda files: renamed(files, ""), "BAD_ARCHIVE", True),
    "no JSON": (lambda files: files.update({"tables/marks.jsonl": b"{\n"}), "BAD_ARCHIVE", True),
    "a row that is cut off": (lambda files: files.update({"tables/marks.jsonl": b"{}"}), "BAD_ARCHIVE", True),
    "a child of nobody": (
        lambda files: files.update({"tables/marks.jsonl": b'{"number":1,"volume_id":"p2-1"}\n'}),
        "BAD_ARCHIVE",
        True,
    ),
}


@pytest.mark.parametrize("wrong", list(WRONG))
def test_nothing_of_a_wrong_archive_is_taken(
    here: ProjectArchive, there: ProjectArchive, tmp_path: Path, wrong: str
) -> None:
    """A typed error, no row, no object; the sound archive is taken afterwards."""
    change, reason, honest = WRONG[wrong]
    sound = export(here)

    with pytest.raises(RekindleError) as caught:
        take(there, remade(sound, change, honest=honest), tmp_path)

    assert isinstance(caught.value, InvalidInput | IntegrityError)
    assert caught.value.reason == reason
    assert there.objects is not None
    assert (rows_of(there), list(there.objects.list())) == (0, [])
    assert take(there, sound, tmp_path) == (4, 1)


def test_a_file_that_grows_when_it_is_read_is_refused(there: ProjectArchive, tmp_path: Path) -> None:
    """A sparse file, which a few bytes make as large as one likes."""
    zeros = bytes(1024 * 1024)
    digest = hashlib.sha256(zeros).hexdigest()
    row = {"volume_id": "v", "project_id": PROJECT, "digest": digest, "made": datetime.now(UTC).isoformat()}
    content = json.dumps(row).encode() + b"\n"
    members = [
        {"name": name, "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
        for name, data in ((f"objects/canonical/{digest}", zeros), ("tables/volumes.jsonl", content))
    ]
    manifest = {"format": 1, "service": "test", "project_id": PROJECT, "members": members}
    target = io.BytesIO()
    with tarfile.open(fileobj=target, mode="w") as tar:
        for name, data in (("tables/volumes.jsonl", content), ("manifest.json", json.dumps(manifest).encode())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        sparse = tarfile.TarInfo(str(members[0]["name"]))
        sparse.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(len(zeros))}
        tar.addfile(sparse)
    assert len(target.getvalue()) < 20_000

    with pytest.raises(InvalidInput) as caught:
        take(there, target.getvalue(), tmp_path)

    assert caught.value.reason == "BAD_ARCHIVE"
    assert (rows_of(there), list(there.objects.list() if there.objects else [])) == (0, [])


def test_an_archive_that_is_cut_off_is_refused(here: ProjectArchive, there: ProjectArchive, tmp_path: Path) -> None:
    """Wherever it ends."""
    data = export(here)
    for length in range(512, len(data) - 1024, 512):
        with pytest.raises((InvalidInput, IntegrityError)):
            take(there, data[:length], tmp_path)
    assert rows_of(there) == 0


@pytest.mark.parametrize("data", [b"", b"not a tar", b"\0" * 10_240])
def test_other_files_are_refused(there: ProjectArchive, tmp_path: Path, data: bytes) -> None:
    """With the same words as an archive that is wrong."""
    with pytest.raises(InvalidInput) as caught:
        take(there, data, tmp_path)
    assert caught.value.reason == "BAD_ARCHIVE"


def test_an_id_that_another_project_has_is_refused(here: ProjectArchive, there: ProjectArchive, tmp_path: Path) -> None:
    """Rows are only added: what is there keeps its owner."""
    with write(there.engine) as connection:
        row = {"volume_id": f"{PROJECT}-1", "project_id": "p3", "digest": DIGEST, "made": datetime.now(UTC)}
        connection.execute(sa.insert(volumes).values(row))
    with pytest.raises(AlreadyExists):
        take(there, export(here), tmp_path)
    assert rows_of(there) == 1
