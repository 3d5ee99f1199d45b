"""Volumes and their receipts in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from rekindle_imaging.geometry import Geometry
from rekindle_servicekit.database import hold_names

from rekindle_inference.domain.records import ProjectId, Receipt, ReceiptId, VolumeId, VolumeRecord
from rekindle_inference.state.rows import Repository, in_parts, older_than, record_of, row_of
from rekindle_inference.state.tables import purged_volumes, receipts, volume_sources, volumes


class Volumes(Repository):
    """Images and masks of all projects."""

    def get(self, project_id: ProjectId, volume_id: VolumeId) -> VolumeRecord | None:
        return self.get_all(project_id, [volume_id]).get(volume_id)

    def get_all(self, project_id: ProjectId, ids: Iterable[VolumeId]) -> dict[VolumeId, VolumeRecord]:
        """Those of the ids that the project has."""
        records: dict[VolumeId, VolumeRecord] = {}
        for part in in_parts(ids):
            query = sa.select(volumes).where(volumes.c.project_id == project_id, volumes.c.volume_id.in_(part))
            for row in self._mappings(query):
                records[row["volume_id"]] = volume_of(row)
        return records

    def is_purged(self, project_id: ProjectId, volume_id: VolumeId) -> bool:
        """Whether there was such a volume and it was erased."""
        tombstone = sa.and_(purged_volumes.c.project_id == project_id, purged_volumes.c.volume_id == volume_id)
        return self._exists(sa.select(purged_volumes.c.volume_id).where(tombstone))

    def find(
        self, project_id: ProjectId, criteria: Mapping[str, str], *, limit: int, after: tuple[datetime, str] | None
    ) -> list[VolumeRecord]:
        """Volumes whose source reference has all of `criteria` (kind -> value), newest first.

        `after` is the moment and the id behind which the list goes on.
        """
        query = sa.select(volumes).where(volumes.c.project_id == project_id)
        for kind, value in criteria.items():
            matching = sa.select(volume_sources.c.volume_id).where(
                volume_sources.c.project_id == project_id,
                volume_sources.c.kind == kind,
                volume_sources.c.value == value,
            )
            query = query.where(volumes.c.volume_id.in_(matching))
        if after is not None:
            query = query.where(older_than(after, volumes.c.created_at, volumes.c.volume_id))
        query = query.order_by(volumes.c.created_at.desc(), volumes.c.volume_id.desc()).limit(limit)
        return [volume_of(row) for row in self._mappings(query)]

    def add(self, volume: VolumeRecord) -> None:
        """Nobody erases the same bytes between this row and the end of its transaction."""
        self.hold(digest for digest in (volume.original_digest, volume.canonical_digest) if digest)
        self._insert(volumes, row_of(volumes, volume, geometry=volume.geometry.to_dict()))
        sources = _source_rows(volume)
        if sources:
            self._connection.execute(sa.insert(volume_sources), sources)

    def hold(self, digests: Iterable[str]) -> None:
        """Nobody else takes in or erases these bytes before this transaction ends. Once, with all of them."""
        hold_names(self._connection, digests)

    def is_free(self, digest: str, *, original: bool = False) -> bool:
        """Whether no volume of any project has it as its canonical or original digest; of bytes that are held."""
        column = volumes.c.original_digest if original else volumes.c.canonical_digest
        return not self._exists(sa.select(volumes.c.volume_id).where(column == digest))


class Receipts(Repository):
    """What the service says of uploaded masks."""

    def get(self, project_id: ProjectId, receipt_id: ReceiptId) -> Receipt | None:
        return self._one(project_id, receipts.c.receipt_id == receipt_id)

    def of_mask(self, project_id: ProjectId, mask_volume_id: VolumeId) -> Receipt | None:
        return self._one(project_id, receipts.c.mask_volume_id == mask_volume_id)

    def add(self, receipt: Receipt) -> None:
        self._insert(receipts, row_of(receipts, receipt))

    def _one(self, project_id: ProjectId, condition: sa.ColumnElement[bool]) -> Receipt | None:
        rows = self._mappings(sa.select(receipts).where(receipts.c.project_id == project_id, condition))
        return receipt_of(rows[0]) if rows else None


def volume_of(row: Mapping[str, Any]) -> VolumeRecord:
    # Masks from before organs were kept have none.
    plain = {**row, "organs": row["organs"] or ()}
    return record_of(VolumeRecord, plain, geometry=Geometry.from_dict(row["geometry"]))


def receipt_of(row: Mapping[str, Any]) -> Receipt:
    return record_of(Receipt, row)


def _source_rows(volume: VolumeRecord) -> list[dict[str, str]]:
    """What a volume can be found by: one row for each part of its source reference."""
    source = volume.source
    single = [
        ("study_instance_uid", source.study_instance_uid),
        ("series_instance_uid", source.series_instance_uid),
        ("frame_of_reference_uid", source.frame_of_reference_uid),
        ("accession_number", source.accession_number),
    ]
    parts = [*single, *(("sop_instance_uid", uid) for uid in dict.fromkeys(source.sop_instance_uids))]
    of_volume = {"volume_id": volume.volume_id, "project_id": volume.project_id}
    return [{**of_volume, "kind": kind, "value": value} for kind, value in parts if value]
