"""What operators do: check that everything that is stored agrees."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rekindle._services import Services
from rekindle.api.common.v1 import admin_pb2 as pb
from rekindle.api.scheduler.v1 import scheduler_pb2 as scheduler
from rekindle.archives import import_project
from rekindle.convert import from_proto
from rekindle.projects import Project

#: The trainer first, as inference needs to know which packages belong to its runs.
_ORDER = ("trainer", "inference", "scheduler")
_VERIFY_TIMEOUT_S = 24 * 3600.0


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One object or row that is not as it should be."""

    #: "missing", "orphaned", "damaged" or "inconsistent".
    kind: str
    service: str
    #: Object key, or table and id of the row.
    where: str
    #: Project of the finding; empty if it belongs to none.
    project_id: str
    message: str
    #: Advice to the operator.
    remedy: str

    @property
    def is_harmless(self) -> bool:
        """Whether it only takes space."""
        return self.kind == "orphaned"


@dataclass(kw_only=True)
class Verification:
    """What a check of all services found."""

    findings: list[Finding] = field(default_factory=list[Finding])
    rows: int = 0
    objects: int = 0
    #: Bytes that were read and compared with their digests; 0 unless deep.
    bytes_read: int = 0

    @property
    def is_sound(self) -> bool:
        """Whether nothing is missing, damaged or inconsistent; orphans do no harm."""
        return all(finding.is_harmless for finding in self.findings)


class AdminCalls:
    """The part of the client that operators use."""

    _services: Services

    def verify(self, *, deep: bool = False, grace_s: int = 0) -> Verification:
        """Compares the rows of every service with the objects and with the other services; changes nothing.

        `deep` reads every object and computes its digest. Objects younger than `grace_s` seconds (0: 24 hours)
        that nothing refers to belong to uploads under way and are left out.
        """
        done, shared = Verification(), list[str]()
        for service in _ORDER:
            known = shared if service == "inference" else []
            request = pb.VerifyRequest(deep=deep, grace_seconds=grace_s, known_objects=known)
            for part in self._verified(service, request):
                if part.WhichOneof("part") == "finding":
                    done.findings.append(from_proto(part.finding, Finding))
                else:
                    done.rows += part.summary.rows
                    done.objects += part.summary.objects
                    done.bytes_read += part.summary.bytes_read
                    shared.extend(part.summary.shared_objects)
        return done

    def import_project(self, path: str | Path) -> Project:
        """Takes in a project that `Project.export` wrote, with the same ids; repeating it changes nothing.

        AlreadyExists where the project is here with other content. InvalidInput (BAD_ARCHIVE, NEWER_ARCHIVE),
        IntegrityError for an archive that cannot be taken; nothing of the project is visible then.
        """
        request = scheduler.GetProjectRequest(project_id=import_project(self._services, Path(path)))
        answer = self._services.scheduler.GetProject(request)
        return Project(self._services, answer.project)

    def _verified(self, service: str, request: pb.VerifyRequest) -> Iterator[pb.VerifyResponse]:
        return self._services.admin[service].Verify(request, timeout=_VERIFY_TIMEOUT_S)
