"""What is left of erased volumes, and which models have learnt from them."""

import sqlalchemy as sa
from alembic import op
from rekindle_servicekit.database import UtcDateTime

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    op.create_table(
        "purged_volumes",
        sa.Column("volume_id", sa.Text(), primary_key=True),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("purged_at", UtcDateTime(), nullable=False),
    )
    op.create_table(
        "purged_snapshots",
        sa.Column("project_id", sa.Text(), primary_key=True),
        sa.Column("snapshot_digest", sa.Text(), primary_key=True),
        sa.Column("purged_at", UtcDateTime(), nullable=False),
    )
    op.add_column("models", sa.Column("trained_on_purged", sa.Boolean(), nullable=False, server_default=sa.false()))
