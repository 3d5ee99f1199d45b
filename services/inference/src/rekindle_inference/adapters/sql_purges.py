"""Erasing volumes in SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from rekindle_servicekit.database import UtcDateTime, database_now, hold_names, wipe, write
from rekindle_servicekit.idempotency import redact

from rekindle_inference.adapters.sql import Clock, SqlWrites
from rekindle_inference.adapters.tables import (
    models,
    predictions,
    purged_snapshots,
    purged_volumes,
    receipts,
    results,
    segmentations,
    slice_ranks,
    uploads,
    volume_sources,
    volumes,
)
from rekindle_inference.domain.records import ModelVersion, ModelVersionId, ProjectId, VolumeId, VolumeKind
from rekindle_inference.domain.uploads import UploadId, UploadState
from rekindle_inference.usecases.purges import Doomed

_IDS_AT_ONCE = 500


class SqlPurges:
    """usecases.purges.Purges over a database."""

    def __init__(self, engine: sa.Engine, clock: Clock = database_now) -> None:
        self._engine = engine
        self._clock = clock

    @contextmanager
    def write(self) -> Generator[SqlPurgeWrites]:
        with write(self._engine) as connection:
            yield SqlPurgeWrites(connection, self._clock(connection))

    def wipe(self) -> None:
        wipe(self._engine)


class SqlPurgeWrites(SqlWrites):
    """One transaction that erases."""

    def doomed(self, project_id: ProjectId, images: Sequence[VolumeId]) -> list[Doomed]:
        named = self._select(volumes.c.project_id == project_id, volumes.c.volume_id, images)
        together = self._select(
            sa.and_(volumes.c.project_id == project_id, volumes.c.kind == VolumeKind.IMAGE),
            volumes.c.original_digest,
            {row.original_digest for row in named if row.original_digest},
        )
        own = {row.canonical_digest for row in named}
        found = {row.volume_id: row for row in named}
        # Another series of the same file; one with the same voxels is another upload of the same series, and stays.
        found |= {row.volume_id: row for row in together if row.canonical_digest not in own}
        masks = self._select(volumes.c.project_id == project_id, volumes.c.image_volume_id, list(found))
        found |= {row.volume_id: row for row in masks}
        doomed = [
            Doomed(
                volume_id=VolumeId(row.volume_id),
                original_digest=row.original_digest,
                canonical_digest=row.canonical_digest,
            )
            for row in found.values()
        ]
        hold_names(self._connection, (d for each in doomed for d in (each.original_digest, each.canonical_digest) if d))
        return doomed

    def erase(self, project_id: ProjectId, doomed: Sequence[Doomed]) -> list[UploadId]:
        ids = [each.volume_id for each in doomed]
        redact(self._connection, {*self._sources(ids), *(each.canonical_digest for each in doomed)})
        finished: list[UploadId] = []
        for part in _parts(ids):
            found = sa.select(uploads.c.upload_id).where(uploads.c.volume_id.in_(part))
            finished += [UploadId(each) for each in self._connection.execute(found).scalars()]
            for column, values in (
                (slice_ranks.c.mask_volume_id, part),
                (results.c.image_volume_id, part),
                (results.c.mask_volume_id, part),
                (segmentations.c.volume_id, part),
                (volume_sources.c.volume_id, part),
                (predictions.c.image_volume_id, part),
                (predictions.c.mask_volume_id, part),
                (receipts.c.mask_volume_id, part),
                (receipts.c.image_volume_id, part),
            ):
                self._connection.execute(sa.delete(column.table).where(column.in_(values)))
        ended = finished + self._end_uploads(project_id, set(ids))
        self._sweep_again(ended)
        is_mask = volumes.c.image_volume_id.is_not(None)
        for part in _parts(ids):
            self._connection.execute(sa.delete(volumes).where(volumes.c.volume_id.in_(part), is_mask))
        for part in _parts(ids):
            self._connection.execute(sa.delete(volumes).where(volumes.c.volume_id.in_(part)))
            tombstones = [{"volume_id": each, "project_id": project_id, "purged_at": self._now} for each in part]
            self._connection.execute(sa.insert(purged_volumes), tombstones)
        return ended

    def _end_uploads(self, project_id: ProjectId, ids: set[VolumeId]) -> list[UploadId]:
        """Masks of these images that are on their way in."""
        under_way = sa.and_(uploads.c.project_id == project_id, uploads.c.state == UploadState.OPEN)
        found = self._connection.execute(sa.select(uploads.c.upload_id, uploads.c.header).where(under_way)).all()
        ended = [UploadId(row.upload_id) for row in found if row.header.get("image_volume_id") in ids]
        for upload_id in ended:
            self.end_upload(upload_id, UploadState.ABORTED)
        return ended

    def _sweep_again(self, upload_ids: Sequence[UploadId]) -> None:
        """What comes after the purge, as a chunk under way or by an address that is still good, is removed too."""
        lasts = sa.and_(uploads.c.presigned, uploads.c.expires_at > self._now)
        for part in _parts(upload_ids):
            which = sa.update(uploads).where(uploads.c.upload_id.in_(part))
            expires_at = sa.case((lasts, uploads.c.expires_at), else_=sa.literal(self._now, UtcDateTime))
            self._connection.execute(which.values(cleaned=False, expires_at=expires_at))

    def unreferenced(self, digests: Collection[str], *, originals: bool) -> set[str]:
        column = volumes.c.original_digest if originals else volumes.c.canonical_digest
        return set(digests) - {getattr(row, column.name) for row in self._select(sa.true(), column, digests)}

    def strike(self, texts: Collection[str]) -> None:
        redact(self._connection, texts)

    def note_snapshots(self, project_id: ProjectId, snapshot_digests: Collection[str]) -> None:
        new = sorted(set(snapshot_digests) - self.snapshots(project_id))
        if new:
            rows = [{"project_id": project_id, "snapshot_digest": each, "purged_at": self._now} for each in new]
            self._connection.execute(sa.insert(purged_snapshots), rows)

    def snapshots(self, project_id: ProjectId) -> set[str]:
        query = sa.select(purged_snapshots.c.snapshot_digest).where(purged_snapshots.c.project_id == project_id)
        return set(self._connection.execute(query).scalars())

    def models_of(self, project_id: ProjectId) -> list[ModelVersion]:
        return self._models(project_id, sa.true())

    def mark(self, model_version_ids: Collection[ModelVersionId]) -> None:
        marked = sa.update(models).where(models.c.model_version_id.in_(list(model_version_ids)))
        self._connection.execute(marked.values(trained_on_purged=True))

    def _sources(self, ids: Sequence[VolumeId]) -> set[str]:
        """What names the patient's studies."""
        found: set[str] = set()
        for part in _parts(ids):
            query = sa.select(volume_sources.c.value).where(volume_sources.c.volume_id.in_(part))
            found |= set(self._connection.execute(query).scalars())
        return found

    def _select(self, condition: sa.ColumnElement[bool], column: sa.Column[Any], values: Collection[str]) -> list[Any]:
        query = sa.select(volumes.c.volume_id, volumes.c.original_digest, volumes.c.canonical_digest)
        found: list[Any] = []
        for part in _parts(values):
            found.extend(self._connection.execute(query.where(condition, column.in_(part))).all())
        return found


def _parts(values: Iterable[Any]) -> Generator[list[Any]]:
    """More at once would exceed what SQLite takes."""
    listed = list(values)
    for first in range(0, len(listed), _IDS_AT_ONCE):
        yield listed[first : first + _IDS_AT_ONCE]
