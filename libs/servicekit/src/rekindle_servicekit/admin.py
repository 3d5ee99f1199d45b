"""AdminService: what operators ask of every service."""

# ruff: noqa: N802 - methods are named as the proto names them

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator
from datetime import timedelta
from itertools import islice
from typing import Any, Protocol

import grpc
from rekindle.api.common.v1 import admin_pb2 as pb
from rekindle.api.common.v1 import admin_pb2_grpc
from rekindle.errors import FieldViolation, InvalidInput

from rekindle_servicekit.server import Server
from rekindle_servicekit.verification import DEFAULT_GRACE, Finding, FindingKind, Summary, VerifyOptions
from rekindle_servicekit.workers import Cancellation, Workers

ADMIN_SERVICE: str = pb.DESCRIPTOR.services_by_name["AdminService"].full_name
_FINDINGS_AT_ONCE = 100
_LONGEST_GRACE_S = 3_153_600_000

Context = grpc.aio.ServicerContext[Any, Any]


class Verify(Protocol):
    """A service's check of what it keeps: findings as they come; `summary` is filled on the way."""

    def __call__(self, options: VerifyOptions, summary: Summary, cancellation: Cancellation) -> Iterator[Finding]: ...


def serve_admin(server: Server, service: str, workers: Workers, *, verify: Verify) -> None:
    """Let `server` answer AdminService for `service`. Before it starts."""
    servicer = AdminServicer(service, workers, verify)
    server.add(ADMIN_SERVICE, servicer, admin_pb2_grpc.add_AdminServiceServicer_to_server)


class AdminServicer(admin_pb2_grpc.AdminServiceServicer):
    """Convert, call, convert."""

    def __init__(self, service: str, workers: Workers, verify: Verify) -> None:
        self._service = service
        self._workers = workers
        self._verify = verify

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

    def _finding(self, finding: Finding) -> pb.Finding:
        return pb.Finding(
            kind=pb.FindingKind.Value(f"FINDING_KIND_{finding.kind.upper()}"),
            service=self._service,
            where=finding.where,
            project_id=finding.project_id,
            message=finding.message,
            remedy=finding.remedy,
        )


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
