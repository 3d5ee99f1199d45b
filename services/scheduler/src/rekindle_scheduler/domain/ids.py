"""Opaque ids and digests, and the ids that are made beforehand so that a repeated step finds its own work."""

from __future__ import annotations

import uuid
from typing import NewType

ProjectId = NewType("ProjectId", str)
CaseId = NewType("CaseId", str)
SeedCaseId = NewType("SeedCaseId", str)
VolumeId = NewType("VolumeId", str)
ReceiptId = NewType("ReceiptId", str)
LeaseId = NewType("LeaseId", str)
SubmissionId = NewType("SubmissionId", str)
DraftId = NewType("DraftId", str)
SessionId = NewType("SessionId", str)
AnnotatorId = NewType("AnnotatorId", str)
ModelVersionId = NewType("ModelVersionId", str)
RunId = NewType("RunId", str)


def run_id_for(project_id: ProjectId, round_number: int, retries: int = 0) -> RunId:
    """The id of a round's run; each retry of a stalled round has a run, and so an id, of its own."""
    suffix = f"-retry-{retries}" if retries else ""
    return RunId(derived_id(project_id, f"round-{round_number}{suffix}"))


def derived_id(project_id: ProjectId, name: str) -> str:
    """A UUID that depends on the project and the name alone. ValueError for a project id that is no UUID."""
    return str(uuid.uuid5(uuid.UUID(project_id), name))
