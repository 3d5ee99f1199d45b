"""Drafts, sessions, corrections and reviews."""

import sqlalchemy as sa
from alembic import op
from rekindle_servicekit.database import UtcDateTime

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


#: Every label that counted when a round was cut is in that round's snapshot, and in those behind it.
FIND_SNAPSHOTS = """
UPDATE submissions SET snapshot_round = COALESCE(
    (SELECT MIN(snapshots.round) FROM snapshots
     WHERE snapshots.project_id = submissions.project_id AND snapshots.round >= submissions.round
       AND snapshots.round > 0),
    0)
WHERE review_state = 'accepted'
"""


def upgrade() -> None:
    op.add_column("cases", sa.Column("pending_submission_id", sa.Text(), nullable=True))
    op.add_column("leases", sa.Column("session_id", sa.Text(), nullable=True))
    op.add_column("leases", sa.Column("tool", sa.Text(), nullable=False, server_default=""))
    op.add_column("leases", sa.Column("revises_submission_id", sa.Text(), nullable=True))
    op.create_index("ix_leases_session", "leases", ["session_id"], unique=False)
    _extend_submissions()
    op.create_index("ix_ledger_lease", "ledger", ["lease_id"], unique=False)
    op.create_table(
        "drafts",
        sa.Column("draft_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("case_id", sa.Text(), nullable=False),
        sa.Column("lease_id", sa.Text(), nullable=False),
        sa.Column("annotator_id", sa.Text(), nullable=False),
        sa.Column("begin_time", UtcDateTime(), nullable=False),
        sa.Column("save_time", UtcDateTime(), nullable=False),
        sa.Column("late", sa.Boolean(), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.annotator_id"], name=op.f("fk_drafts_annotator_id")),
        sa.ForeignKeyConstraint(["case_id"], ["cases.case_id"], name=op.f("fk_drafts_case_id")),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.lease_id"], name=op.f("fk_drafts_lease_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.project_id"], name=op.f("fk_drafts_project_id")),
        sa.PrimaryKeyConstraint("draft_id", name=op.f("pk_drafts")),
    )
    op.create_index("ix_drafts_mine", "drafts", ["project_id", "annotator_id", "begin_time", "draft_id"], unique=False)
    op.create_index("ix_drafts_case", "drafts", ["case_id", "annotator_id"], unique=False)
    op.create_index("ix_drafts_lease", "drafts", ["lease_id"], unique=False)
    op.create_table(
        "sessions",
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("annotator_id", sa.Text(), nullable=False),
        sa.Column("minutes", sa.Double(), nullable=False),
        sa.Column("predicted_minutes", sa.Double(), nullable=False),
        sa.Column("detached", sa.Boolean(), nullable=False),
        sa.Column("create_time", UtcDateTime(), nullable=False),
        sa.Column("expire_time", UtcDateTime(), nullable=False),
        sa.Column("end_time", UtcDateTime(), nullable=True),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.annotator_id"], name=op.f("fk_sessions_annotator_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.project_id"], name=op.f("fk_sessions_project_id")),
        sa.PrimaryKeyConstraint("session_id", name=op.f("pk_sessions")),
    )
    op.create_index(
        "ix_sessions_mine", "sessions", ["project_id", "annotator_id", "create_time", "session_id"], unique=False
    )


def _extend_submissions() -> None:
    op.add_column("submissions", sa.Column("reviewed_by", sa.Text(), nullable=True))
    op.add_column("submissions", sa.Column("review_time", UtcDateTime(), nullable=True))
    op.add_column("submissions", sa.Column("review_comment", sa.Text(), nullable=False, server_default=""))
    op.add_column("submissions", sa.Column("withdraw_time", UtcDateTime(), nullable=True))
    op.add_column("submissions", sa.Column("withdraw_reason", sa.Text(), nullable=False, server_default=""))
    op.add_column("submissions", sa.Column("started_from_submission_id", sa.Text(), nullable=True))
    op.add_column("submissions", sa.Column("snapshot_round", sa.Integer(), nullable=False, server_default="0"))
    op.execute(FIND_SNAPSHOTS)
