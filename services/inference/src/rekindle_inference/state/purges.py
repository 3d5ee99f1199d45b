"""Erasing volumes in SQL."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from rekindle.vocabulary import VolumeKind
from rekindle_servicekit.database import UtcDateTime, hold_names
from rekindle_servicekit.idempotency import redact

from rekindle_inference.domain.records import ProjectId, VolumeId
from rekindle_inference.domain.uploads import UploadId, UploadState
from rekindle_inference.state.rows import Repository, Transaction, in_parts
from rekindle_inference.state.tables import (
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
from rekindle_inference.state.uploads import Uploads


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeTarget:
    """A volume that is to be erased."""

    volume_id: VolumeId
    #: Empty for a predicted mask.
    original_digest: str
    canonical_digest: str


class Purges(Repository):
    """What is erased; volumes are not taken in with the same bytes before the transaction ends."""

    def __init__(self, transaction: Transaction) -> None:
        super().__init__(transaction)
        self._uploads = Uploads(transaction)

    def targets(self, project_id: ProjectId, images: Sequence[VolumeId]) -> list[PurgeTarget]:
        """These images, the other series of files that they came in, and all masks of them."""
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
        targets = [
            PurgeTarget(
                volume_id=VolumeId(row.volume_id),
                original_digest=row.original_digest,
                canonical_digest=row.canonical_digest,
            )
            for row in found.values()
        ]
        digests = [digest for target in targets for digest in (target.original_digest, target.canonical_digest)]
        hold_names(self._connection, (digest for digest in digests if digest))
        return targets

    def purge(self, project_id: ProjectId, targets: Sequence[PurgeTarget]) -> list[UploadId]:
        """Remove the rows and what was made of them, and leave tombstones.

        The uploads that they came with, or were to come with, whose files may still be stored: they are ended.
        """
        ids = [target.volume_id for target in targets]
        self.redact({*self._sources(ids), *(target.canonical_digest for target in targets)})
        finished: list[UploadId] = []
        for part in in_parts(ids):
            query = sa.select(uploads.c.upload_id).where(uploads.c.volume_id.in_(part))
            finished += [UploadId(upload_id) for upload_id in self._connection.execute(query).scalars()]
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
        for part in in_parts(ids):
            self._connection.execute(sa.delete(volumes).where(volumes.c.volume_id.in_(part), is_mask))
        for part in in_parts(ids):
            self._connection.execute(sa.delete(volumes).where(volumes.c.volume_id.in_(part)))
            tombstones = [
                {"volume_id": volume_id, "project_id": project_id, "purged_at": self._now} for volume_id in part
            ]
            self._connection.execute(sa.insert(purged_volumes), tombstones)
        return ended

    def _end_uploads(self, project_id: ProjectId, ids: set[VolumeId]) -> list[UploadId]:
        """Masks of these images that are on their way in."""
        under_way = sa.and_(uploads.c.project_id == project_id, uploads.c.state == UploadState.OPEN)
        rows = self._connection.execute(sa.select(uploads.c.upload_id, uploads.c.header).where(under_way)).all()
        ended = [UploadId(row.upload_id) for row in rows if row.header.get("image_volume_id") in ids]
        for upload_id in ended:
            self._uploads.end(upload_id, UploadState.ABORTED)
        return ended

    def _sweep_again(self, upload_ids: Sequence[UploadId]) -> None:
        """What comes after the purge, as a chunk under way or by an address that is still good, is removed too."""
        lasts = sa.and_(uploads.c.presigned, uploads.c.expires_at > self._now)
        for part in in_parts(upload_ids):
            update = sa.update(uploads).where(uploads.c.upload_id.in_(part))
            expires_at = sa.case((lasts, uploads.c.expires_at), else_=sa.literal(self._now, UtcDateTime))
            self._connection.execute(update.values(cleaned=False, expires_at=expires_at))

    def unreferenced(self, digests: Collection[str], *, originals: bool) -> set[str]:
        """Those that no volume of any project has, as its original or as its canonical digest."""
        column = volumes.c.original_digest if originals else volumes.c.canonical_digest
        return set(digests) - {getattr(row, column.name) for row in self._select(sa.true(), column, digests)}

    def redact(self, texts: Collection[str]) -> None:
        """Overwrite these wherever an answer that is kept has them."""
        redact(self._connection, texts)

    def note_snapshots(self, project_id: ProjectId, snapshot_digests: Collection[str]) -> None:
        new = sorted(set(snapshot_digests) - self.snapshots(project_id))
        if new:
            rows = [{"project_id": project_id, "snapshot_digest": digest, "purged_at": self._now} for digest in new]
            self._connection.execute(sa.insert(purged_snapshots), rows)

    def snapshots(self, project_id: ProjectId) -> set[str]:
        """Snapshots of the project that held erased volumes."""
        query = sa.select(purged_snapshots.c.snapshot_digest).where(purged_snapshots.c.project_id == project_id)
        return set(self._connection.execute(query).scalars())

    def _sources(self, ids: Sequence[VolumeId]) -> set[str]:
        """What names the patient's studies."""
        found: set[str] = set()
        for part in in_parts(ids):
            query = sa.select(volume_sources.c.value).where(volume_sources.c.volume_id.in_(part))
            found |= set(self._connection.execute(query).scalars())
        return found

    def _select(self, condition: sa.ColumnElement[bool], column: sa.Column[Any], values: Collection[str]) -> list[Any]:
        query = sa.select(volumes.c.volume_id, volumes.c.original_digest, volumes.c.canonical_digest)
        found: list[Any] = []
        for part in in_parts(values):
            found.extend(self._connection.execute(query.where(condition, column.in_(part))).all())
        return found
