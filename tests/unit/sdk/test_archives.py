"""Archives of projects: in which order their parts are taken in."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rekindle._call import Caller
from rekindle.archives import import_project
from rekindle.errors import IntegrityError, InvalidInput

PARTS = {name: f"part of {name}".encode() for name in ("scheduler", "inference", "trainer")}


class Admin:
    """Takes every part, and notes whose it was."""

    def __init__(self, name: str, taken: dict[str, bytes]) -> None:
        self._name = name
        self._taken = taken

    def ImportProject(self, requests: Iterator[Any], timeout: float) -> None:  # noqa: N802 - named as in the proto
        header = next(requests).header
        data = b"".join(request.chunk for request in requests)
        assert hashlib.sha256(data).hexdigest() == header.sha256
        self._taken[self._name] = data


class Services:
    def __init__(self) -> None:
        self.taken: dict[str, bytes] = {}
        self.caller = Caller()
        self.admin = {name: Admin(name, self.taken) for name in PARTS}


def archive(folder: Path, **damaged: bytes) -> Path:
    digests = {name: hashlib.sha256(data).hexdigest() for name, data in PARTS.items()}
    index = json.dumps({"format": 1, "project_id": "p", "parts": digests}).encode()
    path = folder / "project.tar"
    with tarfile.open(path, "w") as tar:
        files = {f"{name}.tar": damaged.get(name, data) for name, data in PARTS.items()}
        for name, data in {"rekindle-project.json": index, **files}.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def test_images_come_before_the_runs_that_need_them(tmp_path: Path) -> None:
    """The trainer goes on at once with runs that were under way; the scheduler's project comes last."""
    services: Any = Services()
    assert "p" == import_project(services, archive(tmp_path))
    assert ["inference", "trainer", "scheduler"] == list(services.taken)
    assert PARTS == services.taken


def test_nothing_is_sent_of_a_damaged_archive(tmp_path: Path) -> None:
    """Whichever part it is."""
    services: Any = Services()
    with pytest.raises(IntegrityError, match=r"scheduler\.tar"):
        import_project(services, archive(tmp_path, scheduler=b"!"))
    assert {} == services.taken


def test_a_part_that_grows_when_it_is_read_is_refused(tmp_path: Path) -> None:
    """A sparse file, which a few bytes make as large as one likes, is hashed by nobody."""
    path, zeros = archive(tmp_path), bytes(2**20)
    with tarfile.open(path, "a") as tar:
        sparse = tarfile.TarInfo("trainer.tar")  # the last of a name is the one that counts
        sparse.pax_headers = {"GNU.sparse.map": "0,0", "GNU.sparse.size": str(len(zeros))}
        tar.addfile(sparse)
    assert path.stat().st_size < 30_000
    services: Any = Services()
    with pytest.raises(InvalidInput) as caught:
        import_project(services, path)
    assert ("BAD_ARCHIVE", {}) == (caught.value.reason, services.taken)
