"""An index of the cases that are still to be labelled, in the order in which they are handed out."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index(
        "ix_cases_open",
        "cases",
        ["project_id", "round", "rank"],
        sqlite_where=sa.text("submission_id IS NULL"),
        postgresql_where=sa.text("submission_id IS NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_cases_open", table_name="cases")
