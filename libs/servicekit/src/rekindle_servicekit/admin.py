"""AdminService: what operators ask of every service."""

# ruff: noqa: N802 - methods are named as the proto names them

from __future__ import annotations

import hashlib
import re
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from datetime import timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import grpc
from rekindle.api.common.v1 import admin_pb2 as pb
from rekindle.api.common.v1 import admin_pb2_grpc
from rekindle.errors import FieldViolation, IntegrityError, InvalidInput

from rekindle_servicekit import context as ambient
from rekindle_servicekit.project_archive import ProjectArchive
from rekindle_servicekit.scratch import ScratchFolder, needing_room, remove_abandoned
from rekindle_servicekit.server import Server
from rekindle_servicekit.verification import DEFAULT_GRACE, Finding, FindingKind, Summary, VerifyOptions
from rekindle_servicekit.workers import Cancellation, Workers

ADMIN_SERVICE: str = pb.DESCRIPTOR.services_by_name["AdminService"].full_name
_FINDINGS_AT_ONCE = 100
_LONGEST_GRACE_S = 3_153_600_000
_IMPORTS = "rekindle-import-"

Context = grpc.aio.ServicerContext[Any, Any]


class Verify(Protocol):
    """A service's check of what it keeps: findings as they come; `summary` is filled on the way."""

    def __call__(self, options: VerifyOptions, summary: Summary, cancellation: Cancellation) -> Iterator[Finding]: ...


def serve_admin(server: Server, workers: Workers, *, verify: Verify, archive: ProjectArchive) -> None:
    """Let `server` answer AdminService for the service of the archive. Before it starts.

    What imports of processes that were killed have left is removed: it is patient data.
    """
    remove_abandoned(Path(tempfile.gettempdir()), _IMPORTS)
    servicer = AdminServicer(workers, verify, archive)
    server.add(ADMIN_SERVICE, servicer, admin_pb2_grpc.add_AdminServiceServicer_to_server)


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Convert, call, convert."""

    def __init__(self, workers: Workers, verify: Verify, archive: ProjectArchive) -> None:
        self._service = archive.service
        self._workers = workers
        self._verify = verify
        self._archive = archive

    async def Verify(self, request: pb.VerifyRequest, context: Context) -> AsyncGenerator[pb.VerifyResponse]:
        options, summary = _options(request), Summary()
        cancellation = Cancellation(context.time_remaining())
        findings = self._verify(options, summary, cancellation)
        try:
            while part := await self._workers.run_blocking(lambda: list(islice(findings, _FINDINGS_AT_ONCE))):
                for finding in part:
                    summary.count(finding)
                    yield pb.VerifyResponse(finding=self._finding(finding))
            yield pb.VerifyResponse(summary=_summary(summary))
        finally:
            cancellation.set()

    async def ExportProject(
        self, request: pb.ExportProjectRequest, context: Context
    ) -> AsyncGenerator[pb.ExportProjectResponse]:
        cancellation = Cancellation(context.time_remaining())
        with ambient.bind(project=request.project_id), needing_room("the project's rows"):
            chunks = self._archive.export(request.project_id, cancellation)
            try:
                # Where the caller hangs up the thread is waited for, as nothing can be closed that still runs.
                while (chunk := await self._workers.run_cancellable(None, lambda _: next(chunks, None))) is not None:
                    yield pb.ExportProjectResponse(chunk=chunk)
            finally:
                cancellation.set()
                await self._workers.run_blocking(chunks.close)

    async def ImportProject(
        self, request_iterator: AsyncIterator[pb.ImportProjectRequest], context: Context
    ) -> pb.ImportProjectResponse:
        header = await _header(request_iterator)
        with (
            ambient.bind(project=header.project_id),
            needing_room("the archive"),
            ScratchFolder(Path(tempfile.gettempdir()), _IMPORTS) as folder,
        ):
            path = folder / "archive.tar"
            await self._receive(request_iterator, path, header.sha256)
            caller = ambient.principal()
            rows, objects = await self._workers.run_cancellable(
                context,
                lambda stop: self._archive.import_(
                    caller, header.project_id, header.request_id, header.sha256, path, stop
                ),
            )
        return pb.ImportProjectResponse(project_id=header.project_id, rows=rows, objects=objects)

    async def _receive(self, requests: AsyncIterator[pb.ImportProjectRequest], path: Path, sha256: str) -> None:
        digest = hashlib.sha256()
        with path.open("wb") as target:
            async for request in requests:
                if request.WhichOneof("part") != "chunk":
                    raise _wrong("chunk", "must follow the header: one header begins the stream")
                digest.update(request.chunk)
                await self._workers.run_blocking(target.write, request.chunk)
        if digest.hexdigest() != sha256:
            raise IntegrityError(
                "what arrived does not have the SHA-256 of the header: send it again", reason="DIGEST_MISMATCH"
            )

    def _finding(self, finding: Finding) -> pb.Finding:
        return pb.Finding(
            kind=pb.FindingKind.Value(f"FINDING_KIND_{finding.kind.upper()}"),
            service=self._service,
            where=finding.where,
            project_id=finding.project_id,
            message=finding.message,
            remedy=finding.remedy,
        )


async def _header(requests: AsyncIterator[pb.ImportProjectRequest]) -> pb.ImportProjectHeader:
    async for request in requests:
        if request.WhichOneof("part") == "header":
            header = request.header
            if not header.project_id:
                raise _wrong("header.project_id", "is missing")
            if re.fullmatch(r"[0-9a-f]{64}", header.sha256) is None:
                raise _wrong("header.sha256", "must be the SHA-256 of all chunks in lower-case hex")
            return header
        break
    raise _wrong("header", "must be the first message of the stream")


def _wrong(field: str, problem: str) -> InvalidInput:
    return InvalidInput(f"{field} {problem}", violations=[FieldViolation(field, problem)])


def _options(request: pb.VerifyRequest) -> VerifyOptions:
    if not 0 <= request.grace_seconds <= _LONGEST_GRACE_S:
        problem = "must be 0 to 3153600000 (a hundred years)"
        raise InvalidInput(f"grace_seconds {problem}", violations=[FieldViolation("grace_seconds", problem)])
    grace = timedelta(seconds=request.grace_seconds) if request.grace_seconds else DEFAULT_GRACE
    return VerifyOptions(deep=request.deep, grace=grace, known_objects=frozenset(request.known_objects))


def _summary(summary: Summary) -> pb.VerifySummary:
    return pb.VerifySummary(
        rows=summary.rows,
        objects=summary.objects,
        bytes_read=summary.bytes_read,
        missing=summary.found.get(FindingKind.MISSING, 0),
        orphaned=summary.found.get(FindingKind.ORPHANED, 0),
        damaged=summary.found.get(FindingKind.DAMAGED, 0),
        inconsistent=summary.found.get(FindingKind.INCONSISTENT, 0),
        shared_objects=summary.shared_objects,
    )
