"""Limits of a project's training, and when an attempt began on how many GPUs."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from rekindle_servicekit.database import UtcDateTime

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "training_limits",
        sa.Column("project_id", sa.Text, primary_key=True),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
    )
    # Nullable, as the release before writes attempts without them.
    op.add_column("attempts", sa.Column("gpus", sa.Integer))
    op.add_column("attempts", sa.Column("began_at", UtcDateTime))
