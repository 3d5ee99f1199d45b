"""Projects as one file: three parts, one of each service, in a tar."""

from __future__ import annotations

import hashlib
import json
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any
from uuid import NAMESPACE_OID, uuid5

from rekindle._services import Services
from rekindle.api.common.v1 import admin_pb2 as pb
from rekindle.errors import IntegrityError, InvalidInput

#: The scheduler first: what it refers to is then in the parts that follow.
_PARTS = ("scheduler", "inference", "trainer")
#: The scheduler last, so that the project appears once all of it is there; before the trainer, which goes on with runs
#: that were under way as soon as it has them, the images that they need.
_IMPORTED = ("inference", "trainer", "scheduler")
_INDEX = "rekindle-project.json"
_FORMAT = 1
_CHUNK_BYTES = 1024 * 1024
_TIMEOUT_S = 24 * 3600.0


def export_project(services: Services, project_id: str, path: Path) -> Path:
    """Writes the archive of a project; the file is there when it is complete, and never before."""
    with tempfile.TemporaryDirectory(prefix=".rekindle-export-", dir=path.absolute().parent) as folder:
        parts = {service: Path(folder, f"{service}.tar") for service in _PARTS}
        digests = {service: _receive(services, service, project_id, part) for service, part in parts.items()}
        index = {"format": _FORMAT, "project_id": project_id, "parts": digests}
        bundle = Path(folder, "archive.tar")
        with tarfile.open(bundle, "w", format=tarfile.PAX_FORMAT) as tar:
            data = json.dumps(index, sort_keys=True, indent=2).encode()
            Path(folder, _INDEX).write_bytes(data)
            for member in (Path(folder, _INDEX), *parts.values()):
                _add(tar, member)
        bundle.replace(path)
    return path


def import_project(services: Services, path: Path) -> str:
    """Takes an archive in and answers the project's id. Repeating it changes nothing."""
    try:
        with tarfile.open(path, "r:") as tar:
            index = _read_index(tar)
            members = {service: tar.getmember(f"{service}.tar") for service in _PARTS}
            if not all(member.isreg() and not member.issparse() for member in members.values()):
                raise ValueError("not plain files")
            for service in _IMPORTED:
                _check(tar, members[service], index["parts"][service])
            for service in _IMPORTED:
                stream = tar.extractfile(members[service])
                assert stream is not None
                _send(services, service, index["project_id"], index["parts"][service], stream)
    except (tarfile.TarError, ValueError, KeyError, TypeError) as error:
        raise InvalidInput(f"{path} is no archive of a project: export it again", reason="BAD_ARCHIVE") from error
    return str(index["project_id"])


def _receive(services: Services, service: str, project_id: str, path: Path) -> str:
    request = pb.ExportProjectRequest(project_id=project_id)
    digest = hashlib.sha256()
    with path.open("wb") as target:
        for part in services.admin[service].ExportProject(request, timeout=_TIMEOUT_S):
            digest.update(part.chunk)
            target.write(part.chunk)
    return digest.hexdigest()


def _add(tar: tarfile.TarFile, path: Path) -> None:
    info = tarfile.TarInfo(path.name)
    info.size, info.mode = path.stat().st_size, 0o644
    with path.open("rb") as source:
        tar.addfile(info, source)


def _read_index(tar: tarfile.TarFile) -> dict[str, Any]:
    stream = tar.extractfile(_INDEX)
    if stream is None:
        raise ValueError("no index")
    index = json.loads(stream.read())
    if index["format"] != _FORMAT:
        raise InvalidInput(
            "the archive was made by a newer release: bring this client up to date", reason="NEWER_ARCHIVE"
        )
    return index


def _check(tar: tarfile.TarFile, member: tarfile.TarInfo, sha256: object) -> None:
    stream = tar.extractfile(member)
    assert stream is not None
    digest = hashlib.sha256()
    while chunk := stream.read(_CHUNK_BYTES):
        digest.update(chunk)
    if digest.hexdigest() != sha256:
        raise IntegrityError(f"{member.name} of the archive is damaged: get the archive again")


def _send(services: Services, service: str, project_id: object, sha256: object, stream: IO[bytes]) -> None:
    def requests() -> Iterator[pb.ImportProjectRequest]:
        stream.seek(0)
        # The same archive again is the same act.
        request_id = str(uuid5(NAMESPACE_OID, f"import {sha256}"))
        header = pb.ImportProjectHeader(request_id=request_id, project_id=str(project_id), sha256=str(sha256))
        yield pb.ImportProjectRequest(header=header)
        while chunk := stream.read(_CHUNK_BYTES):
            yield pb.ImportProjectRequest(chunk=chunk)

    method = services.admin[service].ImportProject
    services.caller.repeat(lambda: method(requests(), timeout=_TIMEOUT_S))
