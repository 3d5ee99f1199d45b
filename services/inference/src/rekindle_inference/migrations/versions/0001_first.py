"""Volumes, receipts, models, the active pointer, predictions, answered requests."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_MOMENT = sa.DateTime(timezone=True)


def _text(name: str, *, nullable: bool = False, primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable, primary_key=primary_key)


def _reference(
    name: str, target: str, *, nullable: bool = False, primary_key: bool = False, unique: bool = False
) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), sa.ForeignKey(target), nullable=nullable, primary_key=primary_key, unique=unique)


def upgrade() -> None:
    _create_volumes()
    _create_models()
    _create_requests()


def _create_volumes() -> None:
    op.create_table(
        "volumes",
        _text("volume_id", primary_key=True),
        _text("project_id"),
        _text("kind"),
        sa.Column("geometry", sa.JSON(), nullable=False),
        _text("original_digest"),
        _text("canonical_digest"),
        _text("original_format"),
        sa.Column("source", sa.JSON(), nullable=False),
        _reference("image_volume_id", "volumes.volume_id", nullable=True),
        _text("modality", nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
    )
    op.create_index("ix_volumes_project_id", "volumes", ["project_id"])
    op.create_index("ix_volumes_canonical_digest", "volumes", ["canonical_digest"])
    op.create_table(
        "receipts",
        _text("receipt_id", primary_key=True),
        _text("project_id"),
        _reference("mask_volume_id", "volumes.volume_id", unique=True),
        _reference("image_volume_id", "volumes.volume_id"),
        _reference("coarse_mask_volume_id", "volumes.volume_id", nullable=True),
        _text("mask_digest"),
        _text("image_digest"),
        sa.Column("organs", sa.JSON(), nullable=False),
        sa.Column("effort", sa.JSON(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
    )


def _create_models() -> None:
    op.create_table(
        "models",
        _text("model_version_id", primary_key=True),
        _text("project_id"),
        _text("role"),
        sa.Column("version", sa.Integer(), nullable=False),
        _text("package_digest"),
        sa.Column("organs", sa.JSON(), nullable=False),
        _text("modality"),
        _text("weights_digest"),
        _text("snapshot_digest"),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.UniqueConstraint("project_id", "version", name="uq_models_project_version"),
        sa.UniqueConstraint("project_id", "role", "package_digest", name="uq_models_project_role_package"),
    )
    op.create_table(
        "active_models",
        _text("project_id", primary_key=True),
        _reference("model_version_id", "models.model_version_id"),
    )
    op.create_table(
        "predictions",
        _reference("model_version_id", "models.model_version_id", primary_key=True),
        _reference("image_volume_id", "volumes.volume_id", primary_key=True),
        _reference("mask_volume_id", "volumes.volume_id"),
        _text("mask_digest"),
        sa.Column("quality", sa.JSON(), nullable=False),
        sa.Column("predicted_minutes", sa.Float(), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
    )


def _create_requests() -> None:
    op.create_table(
        "requests",
        _text("issuer", primary_key=True),
        _text("subject", primary_key=True),
        _text("method", primary_key=True),
        _text("request_id", primary_key=True),
        _text("request_digest"),
        sa.Column("response", sa.LargeBinary(), nullable=False),
        sa.Column("answered_at", _MOMENT, nullable=False),
    )
    op.create_index("ix_requests_answered_at", "requests", ["answered_at"])
