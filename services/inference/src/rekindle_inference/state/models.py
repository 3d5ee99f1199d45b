"""Model versions, the projects' pointers, and predictions in SQL."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import sqlalchemy as sa
from rekindle.vocabulary import ModelRole

from rekindle_inference.domain.records import ModelVersion, ModelVersionId, Prediction, ProjectId, VolumeId
from rekindle_inference.domain.results import ResultOrigin
from rekindle_inference.domain.slices import SliceRank, SliceRanks
from rekindle_inference.state.rows import Repository, in_parts, record_of, row_of
from rekindle_inference.state.tables import active_models, models, predictions, purged_snapshots, results, slice_ranks


class Models(Repository):
    """Model versions, and which one of a project is active."""

    def get(self, project_id: ProjectId, model_version_id: ModelVersionId) -> ModelVersion | None:
        return self._first(project_id, models.c.model_version_id == model_version_id)

    def of_package(self, project_id: ProjectId, role: ModelRole, package_digest: str) -> ModelVersion | None:
        return self._first(project_id, sa.and_(models.c.role == role, models.c.package_digest == package_digest))

    def active(self, project_id: ProjectId) -> ModelVersion | None:
        return self._first(project_id, active_models.c.model_version_id.is_not(None))

    def page(
        self, project_id: ProjectId, *, limit: int | None = None, before_version: int | None = None
    ) -> list[ModelVersion]:
        """Newest first."""
        older = sa.true() if before_version is None else models.c.version < before_version
        return self._select(project_id, older, limit)

    def of_mask(self, project_id: ProjectId, mask: VolumeId) -> ModelVersion | None:
        """The model version that made a mask, be it a prediction or a result without some of its organs."""
        predicted = sa.select(predictions.c.model_version_id).where(predictions.c.mask_volume_id == mask)
        by_model = sa.and_(results.c.mask_volume_id == mask, results.c.origin == ResultOrigin.MODEL)
        delivered = sa.select(results.c.model_version_id).where(results.c.project_id == project_id, by_model)
        versions = models.c.model_version_id
        return self._first(project_id, versions.in_(predicted)) or self._first(project_id, versions.in_(delivered))

    def next_version(self, project_id: ProjectId) -> int:
        newest = sa.select(sa.func.max(models.c.version)).where(models.c.project_id == project_id)
        return (self._connection.execute(newest).scalar() or 0) + 1

    def add(self, model: ModelVersion) -> None:
        self._insert(models, row_of(models, model))

    def has_learnt_from_purged(self, project_id: ProjectId, snapshot_digest: str, initial_weights_digest: str) -> bool:
        """Whether the snapshot held volumes that were erased, or a marked version had these weights."""
        snapshot = sa.select(purged_snapshots.c.snapshot_digest).where(
            purged_snapshots.c.project_id == project_id, purged_snapshots.c.snapshot_digest == snapshot_digest
        )
        parent = sa.select(models.c.model_version_id).where(
            models.c.project_id == project_id,
            models.c.trained_on_purged,
            models.c.weights_digest == initial_weights_digest,
            models.c.weights_digest != "",
        )
        return self._exists(snapshot) or self._exists(parent)

    def mark_trained_on_purged(self, model_version_ids: Collection[ModelVersionId]) -> None:
        for part in in_parts(model_version_ids):
            marked = sa.update(models).where(models.c.model_version_id.in_(part))
            self._connection.execute(marked.values(trained_on_purged=True))

    def move_pointer(self, project_id: ProjectId, *, expected: ModelVersionId | None, to: ModelVersionId) -> bool:
        """Compare and set; False where the pointer was not on `expected` (None: nowhere)."""
        pointer = active_models.c.project_id == project_id
        if expected is None:
            if self._exists(sa.select(active_models.c.project_id).where(pointer)):
                return False
            self._insert(active_models, {"project_id": project_id, "model_version_id": to})
            return True
        move = sa.update(active_models).where(pointer, active_models.c.model_version_id == expected)
        return self._connection.execute(move.values(model_version_id=to)).rowcount == 1

    def _first(self, project_id: ProjectId, condition: sa.ColumnElement[bool]) -> ModelVersion | None:
        versions = self._select(project_id, condition, 1)
        return versions[0] if versions else None

    def _select(
        self, project_id: ProjectId, condition: sa.ColumnElement[bool], limit: int | None
    ) -> list[ModelVersion]:
        pointer = sa.and_(
            active_models.c.project_id == models.c.project_id,
            active_models.c.model_version_id == models.c.model_version_id,
        )
        query = (
            sa.select(models, active_models.c.model_version_id.is_not(None).label("active"))
            .select_from(models.outerjoin(active_models, pointer))
            .where(models.c.project_id == project_id, condition)
            .order_by(models.c.version.desc())
            .limit(limit)
        )
        return [model_of(row) for row in self._mappings(query)]


class Predictions(Repository):
    """Images predicted with model versions, and what is known of the slices."""

    def get(self, model_version_id: ModelVersionId, image: VolumeId) -> Prediction | None:
        query = sa.select(predictions).where(
            predictions.c.model_version_id == model_version_id, predictions.c.image_volume_id == image
        )
        rows = self._mappings(query)
        return prediction_of(rows[0]) if rows else None

    def add(self, prediction: Prediction) -> None:
        self._insert(predictions, row_of(predictions, prediction))

    def slice_ranks(self, project_id: ProjectId, mask: VolumeId) -> SliceRanks | None:
        query = sa.select(slice_ranks).where(
            slice_ranks.c.project_id == project_id, slice_ranks.c.mask_volume_id == mask
        )
        rows = self._mappings(query)
        return _slice_ranks_of(rows[0]) if rows else None

    def add_slice_ranks(self, ranks: SliceRanks) -> None:
        organs = {
            organ: [[rank.slice, rank.voxels_wrong, rank.uncertainty] for rank in slices]
            for organ, slices in ranks.organs.items()
        }
        self._insert(slice_ranks, row_of(slice_ranks, ranks, organs=organs))


def model_of(row: Mapping[str, Any]) -> ModelVersion:
    return record_of(
        ModelVersion, row, trained_on_purged=bool(row["trained_on_purged"]), active=bool(row.get("active", False))
    )


def prediction_of(row: Mapping[str, Any]) -> Prediction:
    return record_of(Prediction, row)


def _slice_ranks_of(row: Mapping[str, Any]) -> SliceRanks:
    organs = {
        organ: tuple(SliceRank(slice=k, voxels_wrong=wrong, uncertainty=doubt) for k, wrong, doubt in slices)
        for organ, slices in row["organs"].items()
    }
    return record_of(SliceRanks, row, organs=organs)
