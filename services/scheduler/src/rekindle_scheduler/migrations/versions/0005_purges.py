"""Erasures, and the tombstones that they leave."""

import sqlalchemy as sa
from alembic import op
from rekindle_servicekit.database import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("cases", sa.Column("purged_at", UtcDateTime(), nullable=True))
    op.create_index("ix_cases_group", "cases", ["project_id", "group_key"], unique=False)
    op.create_table(
        "purges",
        sa.Column("purge_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.project_id"], name=op.f("fk_purges_project_id")),
        sa.PrimaryKeyConstraint("purge_id", name=op.f("pk_purges")),
        sa.UniqueConstraint("project_id", "sequence", name=op.f("uq_purges_project_id_sequence")),
    )
    op.create_index("ix_purges_state", "purges", ["state"], unique=False)
