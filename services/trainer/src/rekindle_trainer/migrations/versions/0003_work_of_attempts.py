"""How long an attempt's process was at work, beside when it began and ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from rekindle_servicekit.database import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    # Nullable, as the release before writes attempts without them.
    op.add_column("attempts", sa.Column("seen_at", UtcDateTime))
    op.add_column("attempts", sa.Column("is_at_work", sa.Boolean))
    op.add_column("attempts", sa.Column("worked_seconds", sa.Double))
