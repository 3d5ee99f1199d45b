"""State in SQLite or PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from rekindle.errors import DependencyUnavailable
from rekindle_servicekit import idempotency
from rekindle_servicekit.database import database_now, hold_names, make_engine, prepare_schema, read, write
from sqlalchemy.exc import IntegrityError

from rekindle_inference.adapters import rows
from rekindle_inference.adapters.sql_results import SqlResults
from rekindle_inference.adapters.sql_segmentations import SqlSegmentations, older_than
from rekindle_inference.adapters.sql_uploads import SqlUploadReads, SqlUploadWrites
from rekindle_inference.adapters.tables import (
    active_models,
    models,
    predictions,
    purged_snapshots,
    purged_volumes,
    receipts,
    slice_ranks,
    volume_sources,
    volumes,
)
from rekindle_inference.domain.abstention import QualityLimit
from rekindle_inference.domain.records import (
    ModelRole,
    ModelVersion,
    ModelVersionId,
    Prediction,
    ProjectId,
    Receipt,
    ReceiptId,
    VolumeId,
    VolumeRecord,
)
from rekindle_inference.domain.slices import SliceRanks
from rekindle_inference.ports import Request

#: More ids than this in one statement would exceed what SQLite takes.
_IDS_AT_ONCE = 500


#: How a transaction learns what time it is.
Clock = Callable[[sa.Connection], datetime]


class SqlState:
    """The service's database; its schema is brought up to date when it is opened, unless another step does that."""

    def __init__(self, url: str, *, clock: Clock = database_now, migrates: bool = True) -> None:
        self._engine = make_engine(url)
        self._clock = clock
        prepare_schema(self._engine, "rekindle_inference:migrations", migrates=migrates)

    @property
    def engine(self) -> sa.Engine:
        """For what reads the database as a whole."""
        return self._engine

    @contextmanager
    def read(self) -> Generator[SqlReads]:
        with read(self._engine) as connection:
            yield SqlReads(connection, self._clock(connection))

    @contextmanager
    def write(self) -> Generator[SqlWrites]:
        try:
            with write(self._engine) as connection:
                yield SqlWrites(connection, self._clock(connection))
        except IntegrityError as error:
            raise DependencyUnavailable(
                "the same thing was written at this moment by another call: try again",
                reason="CONCURRENT_WRITE",
                retry_after_s=0.1,
            ) from error

    def close(self) -> None:
        """Let go of all connections."""
        self._engine.dispose()


class SqlReads(SqlUploadReads):
    """Everything as one transaction sees it."""

    def __init__(self, connection: sa.Connection, now: datetime) -> None:
        super().__init__(connection)
        self._now = now
        self.segmentations = SqlSegmentations(connection, now)
        self.results = SqlResults(connection)

    @property
    def now(self) -> datetime:
        return self._now

    def answer_to(self, request: Request) -> str | None:
        response = idempotency.remember(
            self._connection, request.principal, request.method, request.request_id, request.digest
        )
        return None if response is None else response.decode()

    def volume(self, project_id: ProjectId, volume_id: VolumeId) -> VolumeRecord | None:
        return self.volumes(project_id, [volume_id]).get(volume_id)

    def volumes(self, project_id: ProjectId, ids: Iterable[VolumeId]) -> dict[VolumeId, VolumeRecord]:
        wanted, found = list(ids), dict[VolumeId, VolumeRecord]()
        for first in range(0, len(wanted), _IDS_AT_ONCE):
            part = wanted[first : first + _IDS_AT_ONCE]
            query = sa.select(volumes).where(volumes.c.project_id == project_id, volumes.c.volume_id.in_(part))
            for row in self._connection.execute(query).mappings():
                record = rows.volume_of(dict(row))
                found[record.volume_id] = record
        return found

    def is_purged(self, project_id: ProjectId, volume_id: VolumeId) -> bool:
        is_it = sa.and_(purged_volumes.c.project_id == project_id, purged_volumes.c.volume_id == volume_id)
        return self._connection.execute(sa.select(purged_volumes.c.volume_id).where(is_it)).first() is not None

    def receipt(self, project_id: ProjectId, receipt_id: ReceiptId) -> Receipt | None:
        return self._receipt(project_id, receipts.c.receipt_id == receipt_id)

    def receipt_of(self, project_id: ProjectId, mask_volume_id: VolumeId) -> Receipt | None:
        return self._receipt(project_id, receipts.c.mask_volume_id == mask_volume_id)

    def model(self, project_id: ProjectId, model_version_id: ModelVersionId) -> ModelVersion | None:
        found = self._models(project_id, models.c.model_version_id == model_version_id)
        return found[0] if found else None

    def model_of(self, project_id: ProjectId, role: ModelRole, package_digest: str) -> ModelVersion | None:
        is_it = sa.and_(models.c.role == role, models.c.package_digest == package_digest)
        found = self._models(project_id, is_it)
        return found[0] if found else None

    def active_model(self, project_id: ProjectId) -> ModelVersion | None:
        found = self._models(project_id, active_models.c.model_version_id.is_not(None))
        return found[0] if found else None

    def models(self, project_id: ProjectId, *, limit: int, before_version: int | None) -> list[ModelVersion]:
        older = sa.true() if before_version is None else models.c.version < before_version
        return self._models(project_id, older, limit)

    def next_version(self, project_id: ProjectId) -> int:
        newest = sa.select(sa.func.max(models.c.version)).where(models.c.project_id == project_id)
        return (self._connection.execute(newest).scalar() or 0) + 1

    def prediction(self, model_version_id: ModelVersionId, image: VolumeId) -> Prediction | None:
        query = sa.select(predictions).where(
            predictions.c.model_version_id == model_version_id, predictions.c.image_volume_id == image
        )
        row = self._connection.execute(query).mappings().one_or_none()
        return None if row is None else rows.prediction_of(dict(row))

    def slice_ranks(self, project_id: ProjectId, mask: VolumeId) -> SliceRanks | None:
        query = sa.select(slice_ranks).where(
            slice_ranks.c.project_id == project_id, slice_ranks.c.mask_volume_id == mask
        )
        row = self._connection.execute(query).mappings().one_or_none()
        return None if row is None else rows.slice_ranks_of(dict(row))

    def model_of_mask(self, project_id: ProjectId, mask: VolumeId) -> ModelVersion | None:
        predicted = sa.select(predictions.c.model_version_id).where(predictions.c.mask_volume_id == mask)
        found = self._models(project_id, models.c.model_version_id.in_(predicted))
        return found[0] if found else self._model_of_reduced(project_id, mask)

    def find_volumes(
        self, project_id: ProjectId, criteria: Mapping[str, str], *, limit: int, after: tuple[datetime, str] | None
    ) -> list[VolumeRecord]:
        query = sa.select(volumes).where(volumes.c.project_id == project_id)
        for kind, value in criteria.items():
            part = sa.select(volume_sources.c.volume_id).where(
                volume_sources.c.project_id == project_id,
                volume_sources.c.kind == kind,
                volume_sources.c.value == value,
            )
            query = query.where(volumes.c.volume_id.in_(part))
        if after is not None:
            query = query.where(older_than(after, volumes.c.created_at, volumes.c.volume_id))
        query = query.order_by(volumes.c.created_at.desc(), volumes.c.volume_id.desc()).limit(limit)
        return [rows.volume_of(dict(row)) for row in self._connection.execute(query).mappings()]

    def quality_limits(self, project_id: ProjectId) -> list[QualityLimit]:
        return self.results.limits(project_id)

    def _model_of_reduced(self, project_id: ProjectId, mask: VolumeId) -> ModelVersion | None:
        version = self.results.model_of_mask(project_id, mask)
        return None if version is None else self.model(project_id, version)

    def _receipt(self, project_id: ProjectId, is_it: sa.ColumnElement[bool]) -> Receipt | None:
        query = sa.select(receipts).where(receipts.c.project_id == project_id, is_it)
        row = self._connection.execute(query).mappings().one_or_none()
        return None if row is None else rows.receipt_of(dict(row))

    def _models(
        self, project_id: ProjectId, which: sa.ColumnElement[bool], limit: int | None = None
    ) -> list[ModelVersion]:
        pointer = sa.and_(
            active_models.c.project_id == models.c.project_id,
            active_models.c.model_version_id == models.c.model_version_id,
        )
        query = (
            sa.select(models, active_models.c.model_version_id.is_not(None).label("active"))
            .select_from(models.outerjoin(active_models, pointer))
            .where(models.c.project_id == project_id, which)
            .order_by(models.c.version.desc())
            .limit(limit)
        )
        return [rows.model_of(dict(row)) for row in self._connection.execute(query).mappings()]


class SqlWrites(SqlReads, SqlUploadWrites):
    """A transaction that writes."""

    def answer(self, request: Request, answer: str) -> None:
        idempotency.store(
            self._connection,
            request.principal,
            request.method,
            request.request_id,
            request.digest,
            answer.encode(),
            now=self._now,
        )

    def add_volume(self, volume: VolumeRecord) -> None:
        # Nobody erases the same bytes between this row and the end of its transaction.
        hold_names(self._connection, [digest for digest in (volume.original_digest, volume.canonical_digest) if digest])
        self._insert(volumes, rows.volume_row(volume))
        sources = rows.source_rows(volume)
        if sources:
            self._connection.execute(sa.insert(volume_sources), sources)

    def hold(self, digests: Iterable[str]) -> None:
        hold_names(self._connection, digests)

    def is_free(self, digest: str, *, original: bool = False) -> bool:
        column = volumes.c.original_digest if original else volumes.c.canonical_digest
        query = sa.select(volumes.c.volume_id).where(column == digest).limit(1)
        return self._connection.execute(query).first() is None

    def add_receipt(self, receipt: Receipt) -> None:
        self._insert(receipts, rows.receipt_row(receipt))

    def add_model(self, model: ModelVersion) -> None:
        self._insert(models, rows.model_row(replace(model, active=False)))

    def has_learnt_from_purged(self, project_id: ProjectId, snapshot_digest: str, initial_weights_digest: str) -> bool:
        snapshot = sa.select(purged_snapshots.c.snapshot_digest).where(
            purged_snapshots.c.project_id == project_id, purged_snapshots.c.snapshot_digest == snapshot_digest
        )
        parent = sa.select(models.c.model_version_id).where(
            models.c.project_id == project_id,
            models.c.trained_on_purged,
            models.c.weights_digest == initial_weights_digest,
            models.c.weights_digest != "",
        )
        return any(self._connection.execute(query).first() is not None for query in (snapshot, parent))

    def move_pointer(self, project_id: ProjectId, *, expected: ModelVersionId | None, to: ModelVersionId) -> bool:
        if expected is None:
            pointed = sa.select(active_models.c.project_id).where(active_models.c.project_id == project_id)
            if self._connection.execute(pointed).first() is not None:
                return False
            self._insert(active_models, {"project_id": project_id, "model_version_id": to})
            return True
        on_expected = sa.and_(active_models.c.project_id == project_id, active_models.c.model_version_id == expected)
        move = sa.update(active_models).where(on_expected).values(model_version_id=to)
        return self._connection.execute(move).rowcount == 1

    def add_prediction(self, prediction: Prediction) -> None:
        self._insert(predictions, rows.prediction_row(prediction))

    def add_slice_ranks(self, ranks: SliceRanks) -> None:
        self._insert(slice_ranks, rows.slice_ranks_row(ranks))

    def set_quality_limits(self, project_id: ProjectId, limits: Iterable[QualityLimit]) -> None:
        self.results.set_limits(project_id, limits)

    def _insert(self, table: sa.Table, row: dict[str, Any]) -> None:
        self._connection.execute(sa.insert(table).values(row))
