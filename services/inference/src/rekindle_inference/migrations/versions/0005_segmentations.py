"""Durable segmentations, the feed of results, quality limits."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

_MOMENT = sa.DateTime(timezone=True)


def _text(name: str, *, nullable: bool = False, primary_key: bool = False) -> sa.Column[str]:
    return sa.Column(name, sa.Text(), nullable=nullable, primary_key=primary_key)


def upgrade() -> None:
    _create_segmentations()
    _create_results()
    op.create_table(
        "quality_limits",
        _text("project_id", primary_key=True),
        _text("organ_id", primary_key=True),
        sa.Column("min_soft_dice_confidence", sa.Float(), nullable=False),
        sa.Column("abstain_when_nothing_found", sa.Boolean(), nullable=False),
    )


def _create_segmentations() -> None:
    op.create_table(
        "segmentations",
        _text("segmentation_id", primary_key=True),
        _text("project_id"),
        _text("volume_id"),
        _text("requested_model_version_id", nullable=True),
        _text("model_version_id", nullable=True),
        _text("priority"),
        sa.Column("lane", sa.Integer(), nullable=False),
        sa.Column("due_at", _MOMENT, nullable=False),
        _text("state"),
        _text("reason"),
        _text("failure_reason"),
        sa.Column("slices_done", sa.Integer(), nullable=False),
        sa.Column("slices_total", sa.Integer(), nullable=False),
        _text("result_id", nullable=True),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("attempts", sa.Integer(), nullable=False),
        _text("claim", nullable=True),
        sa.Column("claim_until", _MOMENT, nullable=True),
        sa.Column("not_before", _MOMENT, nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("started_at", _MOMENT, nullable=True),
        sa.Column("ended_at", _MOMENT, nullable=True),
        sa.Column("expire_at", _MOMENT, nullable=False),
    )
    op.create_index("ix_segmentations_queue", "segmentations", ["state", "lane", "due_at"])
    op.create_index("ix_segmentations_project", "segmentations", ["project_id", "created_at"])


def _create_results() -> None:
    op.create_table(
        "results",
        _text("result_id", primary_key=True),
        _text("project_id"),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        _text("image_volume_id"),
        _text("mask_volume_id"),
        _text("origin"),
        _text("model_version_id", nullable=True),
        _text("supersedes_result_id", nullable=True),
        _text("outranked_by_result_id", nullable=True),
        sa.Column("retracted", sa.Boolean(), nullable=False),
        sa.Column("leads", sa.Boolean(), nullable=False),
        sa.Column("quality", sa.JSON(), nullable=False),
        sa.Column("abstentions", sa.JSON(), nullable=False),
        _text("segmentation_id", nullable=True),
        _text("submission_id", nullable=True),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.UniqueConstraint("project_id", "cursor", name="uq_results_project_cursor"),
    )
    op.create_index("ix_results_image", "results", ["project_id", "image_volume_id", "cursor"])
    op.create_index("ix_results_submission", "results", ["project_id", "submission_id"])
    op.create_index("ix_results_mask", "results", ["project_id", "mask_volume_id"])
    op.create_table(
        "result_cursors",
        _text("project_id", primary_key=True),
        sa.Column("last", sa.BigInteger(), nullable=False),
    )
