"""Every reference of the scheduler's rows to another service."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from rekindle.vocabulary import Digest
from rekindle_servicekit.database import read

from rekindle_scheduler.domain.ids import ProjectId, VolumeId
from rekindle_scheduler.state.tables import cases, drafts, predictions, projects, rounds, seed_cases, submissions

_ROWS_AT_ONCE = 5000


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeReference:
    """A row that refers to a volume of inference."""

    #: Table and id, as in "cases/3f2a".
    row: str
    project_id: ProjectId
    volume_id: VolumeId
    #: Digest of the canonical object; None where the row does not name it.
    digest: Digest | None


@dataclass(frozen=True, slots=True, kw_only=True)
class IdReference:
    """A row that refers to a receipt, a model version or a run."""

    row: str
    project_id: ProjectId
    id: str


class Inventory:
    """Everything that refers to another service; each list is read in pages, by project."""

    def __init__(self, engine: sa.Engine) -> None:
        self._engine = engine

    def volumes(self) -> Iterator[VolumeReference]:
        for project_id in self._projects():
            for row in self._pages(cases, project_id, "case_id"):
                if row.purged_at is None:
                    yield _volume(f"cases/{row.case_id}", row, "volume_id", row.image_digest)
            for row in self._pages(seed_cases, project_id, "seed_case_id"):
                yield _volume(f"seed_cases/{row.seed_case_id}", row, "image_volume_id", row.image_digest)
                yield _volume(f"seed_cases/{row.seed_case_id}", row, "mask_volume_id", row.mask_digest)
            for row in self._pages(submissions, project_id, "submission_id"):
                if row.mask_volume_id:  # empty where its case was erased
                    yield _volume(f"submissions/{row.submission_id}", row, "mask_volume_id", row.mask_digest)
            for row in self._pages(predictions, project_id, "case_id", "model_version_id"):
                if row.mask_volume_id:
                    digest = (row.coarse_label or {}).get("mask_digest")
                    yield _volume(f"predictions/{row.case_id}", row, "mask_volume_id", digest)
            for row in self._pages(drafts, project_id, "draft_id"):
                if row.record.get("mask_volume_id"):
                    yield VolumeReference(
                        row=f"drafts/{row.draft_id}",
                        project_id=row.project_id,
                        volume_id=row.record["mask_volume_id"],
                        digest=row.record.get("mask_digest"),
                    )

    def receipts(self) -> Iterator[IdReference]:
        for project_id in self._projects():
            for row in self._pages(seed_cases, project_id, "seed_case_id"):
                yield IdReference(row=f"seed_cases/{row.seed_case_id}", project_id=project_id, id=row.receipt_id)
            for row in self._pages(submissions, project_id, "submission_id"):
                if row.receipt_id:
                    yield IdReference(row=f"submissions/{row.submission_id}", project_id=project_id, id=row.receipt_id)

    def models(self) -> Iterator[IdReference]:
        for row in self._rounds():
            version = row.record.get("candidate_model_version_id")
            if version:
                yield IdReference(row=f"rounds/{row.number}", project_id=row.project_id, id=version)

    def runs(self) -> Iterator[IdReference]:
        for row in self._rounds():
            if row.record.get("run"):
                yield IdReference(row=f"rounds/{row.number}", project_id=row.project_id, id=row.record["run"]["run_id"])

    def pointers(self) -> Iterator[IdReference]:
        """Projects, each with the version that it takes for the one that serves."""
        query = sa.select(projects.c.project_id, projects.c.active_model_version_id)
        query = query.where(projects.c.active_model_version_id.is_not(None)).order_by(projects.c.project_id)
        with read(self._engine) as connection:
            rows = connection.execute(query).all()
        for project_id, version in rows:
            yield IdReference(row=f"projects/{project_id}", project_id=project_id, id=version)

    def _projects(self) -> list[Any]:
        with read(self._engine) as connection:
            return list(connection.execute(sa.select(projects.c.project_id).order_by(projects.c.project_id)).scalars())

    def _rounds(self) -> Iterator[Any]:
        for project_id in self._projects():
            yield from self._pages(rounds, project_id, "number")

    def _pages(self, table: sa.Table, project_id: str, *key: str) -> Iterator[Any]:
        columns = [table.c[name] for name in key]
        query = sa.select(table).where(table.c.project_id == project_id).order_by(*columns).limit(_ROWS_AT_ONCE)
        after: tuple[Any, ...] | None = None
        while True:
            page = query if after is None else query.where(sa.tuple_(*columns) > sa.tuple_(*after))
            with read(self._engine) as connection:
                rows = connection.execute(page).all()
            yield from rows
            if len(rows) < _ROWS_AT_ONCE:
                return
            after = tuple(getattr(rows[-1], name) for name in key)


def _volume(row: str, source: Any, column: str, digest: Any) -> VolumeReference:
    return VolumeReference(
        row=row, project_id=source.project_id, volume_id=getattr(source, column), digest=digest or None
    )
