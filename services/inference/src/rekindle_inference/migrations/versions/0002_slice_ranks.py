"""Where coarse labels are expected to be wrong."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "slice_ranks",
        sa.Column("mask_volume_id", sa.Text(), sa.ForeignKey("volumes.volume_id"), primary_key=True),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("model_version_id", sa.Text(), sa.ForeignKey("models.model_version_id"), nullable=False),
        sa.Column("organs", sa.JSON(), nullable=False),
    )
