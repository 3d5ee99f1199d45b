"""The tables of the service's database."""

from __future__ import annotations

import sqlalchemy as sa
from rekindle_servicekit.database import UtcDateTime
from rekindle_servicekit.idempotency import define_requests

metadata = sa.MetaData()
requests = define_requests(metadata)

volumes = sa.Table(
    "volumes",
    metadata,
    sa.Column("volume_id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False, index=True),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("geometry", sa.JSON, nullable=False),
    sa.Column("original_digest", sa.Text, nullable=False),
    sa.Column("canonical_digest", sa.Text, nullable=False, index=True),
    sa.Column("original_format", sa.Text, nullable=False),
    sa.Column("source", sa.JSON, nullable=False),
    sa.Column("image_volume_id", sa.Text, sa.ForeignKey("volumes.volume_id"), nullable=True),
    sa.Column("modality", sa.Text, nullable=True),
    sa.Column("organs", sa.JSON, nullable=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

# What images can be found by: each part of their source references.
volume_sources = sa.Table(
    "volume_sources",
    metadata,
    sa.Column("volume_id", sa.Text, sa.ForeignKey("volumes.volume_id"), primary_key=True),
    sa.Column("kind", sa.Text, primary_key=True),
    sa.Column("value", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Index("ix_volume_sources_value", "project_id", "kind", "value"),
)

# What was erased: nothing but the ids is left.
purged_volumes = sa.Table(
    "purged_volumes",
    metadata,
    sa.Column("volume_id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("purged_at", UtcDateTime, nullable=False),
)

# Snapshots that held erased volumes: model versions trained on them are marked, also those to come.
purged_snapshots = sa.Table(
    "purged_snapshots",
    metadata,
    sa.Column("project_id", sa.Text, primary_key=True),
    sa.Column("snapshot_digest", sa.Text, primary_key=True),
    sa.Column("purged_at", UtcDateTime, nullable=False),
)

receipts = sa.Table(
    "receipts",
    metadata,
    sa.Column("receipt_id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("mask_volume_id", sa.Text, sa.ForeignKey("volumes.volume_id"), nullable=False, unique=True),
    sa.Column("image_volume_id", sa.Text, sa.ForeignKey("volumes.volume_id"), nullable=False),
    sa.Column("coarse_mask_volume_id", sa.Text, sa.ForeignKey("volumes.volume_id"), nullable=True),
    sa.Column("mask_digest", sa.Text, nullable=False),
    sa.Column("image_digest", sa.Text, nullable=False),
    sa.Column("organs", sa.JSON, nullable=False),
    sa.Column("effort", sa.JSON, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

models = sa.Table(
    "models",
    metadata,
    sa.Column("model_version_id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("role", sa.Text, nullable=False),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Column("package_digest", sa.Text, nullable=False),
    sa.Column("organs", sa.JSON, nullable=False),
    sa.Column("modality", sa.Text, nullable=False),
    sa.Column("weights_digest", sa.Text, nullable=False),
    sa.Column("snapshot_digest", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("trained_on_purged", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.UniqueConstraint("project_id", "version", name="uq_models_project_version"),
    sa.UniqueConstraint("project_id", "role", "package_digest", name="uq_models_project_role_package"),
)

active_models = sa.Table(
    "active_models",
    metadata,
    sa.Column("project_id", sa.Text, primary_key=True),
    sa.Column("model_version_id", sa.Text, sa.ForeignKey("models.model_version_id"), nullable=False),
)

slice_ranks = sa.Table(
    "slice_ranks",
    metadata,
    sa.Column("mask_volume_id", sa.Text, sa.ForeignKey("volumes.volume_id"), primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("model_version_id", sa.Text, sa.ForeignKey("models.model_version_id"), nullable=False),
    # {organ: [[slice, voxels expected to be wrong, uncertainty], ...]}
    sa.Column("organs", sa.JSON, nullable=False),
)

uploads = sa.Table(
    "uploads",
    metadata,
    sa.Column("upload_id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False, index=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("act", sa.JSON, nullable=False),
    sa.Column("header", sa.JSON, nullable=False),
    sa.Column("size_bytes", sa.BigInteger, nullable=False),
    sa.Column("received_bytes", sa.BigInteger, nullable=False),
    sa.Column("chunks", sa.Integer, nullable=False),
    sa.Column("presigned", sa.Boolean, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("expires_at", UtcDateTime, nullable=False, index=True),
    sa.Column("volume_id", sa.Text, nullable=True),
    sa.Column("refusal", sa.JSON(none_as_null=True), nullable=True),
    # Whether its objects are known to be gone for good.
    sa.Column("cleaned", sa.Boolean, nullable=False, default=False),
)

upload_parts = sa.Table(
    "upload_parts",
    metadata,
    sa.Column("upload_id", sa.Text, sa.ForeignKey("uploads.upload_id"), primary_key=True),
    sa.Column("offset", sa.BigInteger, primary_key=True),
    sa.Column("size_bytes", sa.Integer, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),
)

predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column("model_version_id", sa.Text, sa.ForeignKey("models.model_version_id"), primary_key=True),
    sa.Column("image_volume_id", sa.Text, sa.ForeignKey("volumes.volume_id"), primary_key=True),
    sa.Column("mask_volume_id", sa.Text, sa.ForeignKey("volumes.volume_id"), nullable=False, index=True),
    sa.Column("mask_digest", sa.Text, nullable=False),
    sa.Column("quality", sa.JSON, nullable=False),
    sa.Column("predicted_minutes", sa.Float, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
)

segmentations = sa.Table(
    "segmentations",
    metadata,
    sa.Column("segmentation_id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("volume_id", sa.Text, nullable=False),
    sa.Column("requested_model_version_id", sa.Text, nullable=True),
    sa.Column("model_version_id", sa.Text, nullable=True),
    sa.Column("priority", sa.Text, nullable=False),
    sa.Column("lane", sa.Integer, nullable=False),
    sa.Column("due_at", UtcDateTime, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("failure_reason", sa.Text, nullable=False),
    sa.Column("slices_done", sa.Integer, nullable=False),
    sa.Column("slices_total", sa.Integer, nullable=False),
    sa.Column("result_id", sa.Text, nullable=True),
    sa.Column("revision", sa.BigInteger, nullable=False),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("claim", sa.Text, nullable=True),
    sa.Column("claim_until", UtcDateTime, nullable=True),
    sa.Column("not_before", UtcDateTime, nullable=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("started_at", UtcDateTime, nullable=True),
    sa.Column("ended_at", UtcDateTime, nullable=True),
    sa.Column("expire_at", UtcDateTime, nullable=False),
    sa.Index("ix_segmentations_queue", "state", "lane", "due_at"),
    sa.Index("ix_segmentations_project", "project_id", "created_at"),
)

results = sa.Table(
    "results",
    metadata,
    sa.Column("result_id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("cursor", sa.BigInteger, nullable=False),
    sa.Column("image_volume_id", sa.Text, nullable=False),
    sa.Column("mask_volume_id", sa.Text, nullable=False),
    sa.Column("origin", sa.Text, nullable=False),
    sa.Column("model_version_id", sa.Text, nullable=True),
    sa.Column("supersedes_result_id", sa.Text, nullable=True),
    sa.Column("outranked_by_result_id", sa.Text, nullable=True),
    sa.Column("retracted", sa.Boolean, nullable=False),
    sa.Column("leads", sa.Boolean, nullable=False),
    sa.Column("quality", sa.JSON, nullable=False),
    sa.Column("abstentions", sa.JSON, nullable=False),
    sa.Column("segmentation_id", sa.Text, nullable=True),
    sa.Column("submission_id", sa.Text, nullable=True),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.UniqueConstraint("project_id", "cursor", name="uq_results_project_cursor"),
    sa.Index("ix_results_image", "project_id", "image_volume_id", "cursor"),
    sa.Index("ix_results_submission", "project_id", "submission_id"),
    sa.Index("ix_results_mask", "project_id", "mask_volume_id"),
)

#: The last cursor given in each project; its row is locked while a result is added, so that none comes late.
result_cursors = sa.Table(
    "result_cursors",
    metadata,
    sa.Column("project_id", sa.Text, primary_key=True),
    sa.Column("last", sa.BigInteger, nullable=False),
)

quality_limits = sa.Table(
    "quality_limits",
    metadata,
    sa.Column("project_id", sa.Text, primary_key=True),
    sa.Column("organ_id", sa.Text, primary_key=True),
    sa.Column("min_soft_dice_confidence", sa.Float, nullable=False),
    sa.Column("abstain_when_nothing_found", sa.Boolean, nullable=False),
)
