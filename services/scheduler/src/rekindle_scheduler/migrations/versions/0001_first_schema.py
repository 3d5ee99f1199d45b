"""The first schema."""

import sqlalchemy as sa
from alembic import op
from rekindle_servicekit.database import UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "annotators",
        sa.Column("annotator_id", sa.Text(), nullable=False),
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("annotator_id", name=op.f("pk_annotators")),
        sa.UniqueConstraint("issuer", "subject", name=op.f("uq_annotators_issuer_subject")),
    )
    op.create_table(
        "projects",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("organs", sa.JSON(), nullable=False),
        sa.Column("target_modality", sa.Text(), nullable=False),
        sa.Column("policy", sa.JSON(), nullable=False),
        sa.Column("policy_version", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("state_reason", sa.Text(), nullable=False),
        sa.Column("registration_open", sa.Boolean(), nullable=False),
        sa.Column("create_time", UtcDateTime(), nullable=False),
        sa.Column("active_model_version_id", sa.Text(), nullable=True),
        sa.Column("last_cursor", sa.BigInteger(), nullable=False),
        sa.Column("last_seed_case", sa.BigInteger(), nullable=False),
        sa.Column("last_case", sa.BigInteger(), nullable=False),
        sa.Column("last_submission", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("project_id", name=op.f("pk_projects")),
        sa.UniqueConstraint("sequence", name=op.f("uq_projects_sequence")),
    )
    op.create_index(op.f("ix_projects_state"), "projects", ["state"], unique=False)
    op.create_table(
        "requests",
        sa.Column("issuer", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text(), nullable=False),
        sa.Column("method", sa.Text(), nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("request_digest", sa.Text(), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=False),
        sa.Column("answered_at", UtcDateTime(), nullable=False),
        sa.PrimaryKeyConstraint("issuer", "subject", "method", "request_id", name=op.f("pk_requests")),
    )
    op.create_index(op.f("ix_requests_answered_at"), "requests", ["answered_at"], unique=False)
    op.create_table(
        "cases",
        sa.Column("case_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("volume_id", sa.Text(), nullable=False),
        sa.Column("image_digest", sa.Text(), nullable=False),
        sa.Column("group_key", sa.Text(), nullable=False),
        sa.Column("held_out", sa.Boolean(), nullable=False),
        sa.Column("mark", sa.Text(), nullable=False),
        sa.Column("register_time", UtcDateTime(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("rank", sa.Integer(), nullable=False),
        sa.Column("ordering_rank", sa.BigInteger(), nullable=False),
        sa.Column("fencing_token", sa.BigInteger(), nullable=False),
        sa.Column("lease_id", sa.Text(), nullable=True),
        sa.Column("lease_expire_time", UtcDateTime(), nullable=True),
        sa.Column("submission_id", sa.Text(), nullable=True),
        sa.Column("coarse_label", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("coarse_model_version_id", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["project_id"], ["projects.project_id"], name=op.f("fk_cases_project_id")),
        sa.PrimaryKeyConstraint("case_id", name=op.f("pk_cases")),
        sa.UniqueConstraint("project_id", "sequence", name=op.f("uq_cases_project_id_sequence")),
        sa.UniqueConstraint("project_id", "volume_id", name=op.f("uq_cases_project_id_volume_id")),
    )
    op.create_index("ix_cases_next", "cases", ["project_id", "round", "submission_id", "rank"], unique=False)
    op.create_index("ix_cases_ordering", "cases", ["project_id", "ordering_rank", "sequence"], unique=False)
    op.create_table(
        "events",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("cursor", sa.BigInteger(), nullable=False),
        sa.Column("time", UtcDateTime(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("message", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("details", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.project_id"], name=op.f("fk_events_project_id")),
        sa.PrimaryKeyConstraint("project_id", "cursor", name=op.f("pk_events")),
    )
    op.create_table(
        "rounds",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("number", sa.Integer(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.project_id"], name=op.f("fk_rounds_project_id")),
        sa.PrimaryKeyConstraint("project_id", "number", name=op.f("pk_rounds")),
    )
    op.create_table(
        "seed_cases",
        sa.Column("seed_case_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("modality", sa.Text(), nullable=False),
        sa.Column("image_volume_id", sa.Text(), nullable=False),
        sa.Column("mask_volume_id", sa.Text(), nullable=False),
        sa.Column("receipt_id", sa.Text(), nullable=False),
        sa.Column("image_digest", sa.Text(), nullable=False),
        sa.Column("mask_digest", sa.Text(), nullable=False),
        sa.Column("organ_states", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.project_id"], name=op.f("fk_seed_cases_project_id")),
        sa.PrimaryKeyConstraint("seed_case_id", name=op.f("pk_seed_cases")),
        sa.UniqueConstraint("project_id", "image_volume_id", name=op.f("uq_seed_cases_project_id_image_volume_id")),
        sa.UniqueConstraint("project_id", "sequence", name=op.f("uq_seed_cases_project_id_sequence")),
    )
    op.create_table(
        "snapshots",
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("digest", sa.Text(), nullable=False),
        sa.Column("record", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["project_id"], ["projects.project_id"], name=op.f("fk_snapshots_project_id")),
        sa.PrimaryKeyConstraint("project_id", "round", name=op.f("pk_snapshots")),
    )
    op.create_table(
        "leases",
        sa.Column("lease_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("case_id", sa.Text(), nullable=False),
        sa.Column("fencing_token", sa.BigInteger(), nullable=False),
        sa.Column("annotator_id", sa.Text(), nullable=False),
        sa.Column("start_time", UtcDateTime(), nullable=False),
        sa.Column("expire_time", UtcDateTime(), nullable=False),
        sa.Column("end_time", UtcDateTime(), nullable=True),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("coarse_model_version_id", sa.Text(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.annotator_id"], name=op.f("fk_leases_annotator_id")),
        sa.ForeignKeyConstraint(["case_id"], ["cases.case_id"], name=op.f("fk_leases_case_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.project_id"], name=op.f("fk_leases_project_id")),
        sa.PrimaryKeyConstraint("lease_id", name=op.f("pk_leases")),
        sa.UniqueConstraint("case_id", "fencing_token", name=op.f("uq_leases_case_id_fencing_token")),
    )
    op.create_index("ix_leases_mine", "leases", ["project_id", "annotator_id", "state"], unique=False)
    op.create_table(
        "ledger",
        sa.Column("source_id", sa.Text(), nullable=False),
        sa.Column("segment", sa.Integer(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("submission_id", sa.Text(), nullable=True),
        sa.Column("lease_id", sa.Text(), nullable=True),
        sa.Column("case_id", sa.Text(), nullable=False),
        sa.Column("annotator_id", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("held_out", sa.Boolean(), nullable=False),
        sa.Column("coarse_model_version_id", sa.Text(), nullable=True),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("start_time", UtcDateTime(), nullable=False),
        sa.Column("active_seconds", sa.Double(), nullable=False),
        sa.Column("tool", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["annotator_id"], ["annotators.annotator_id"], name=op.f("fk_ledger_annotator_id")),
        sa.ForeignKeyConstraint(["case_id"], ["cases.case_id"], name=op.f("fk_ledger_case_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.project_id"], name=op.f("fk_ledger_project_id")),
        sa.PrimaryKeyConstraint("source_id", "segment", name=op.f("pk_ledger")),
    )
    op.create_index("ix_ledger_annotator", "ledger", ["project_id", "annotator_id", "start_time"], unique=False)
    op.create_index("ix_ledger_project", "ledger", ["project_id", "source_id", "segment"], unique=False)
    op.create_table(
        "predictions",
        sa.Column("case_id", sa.Text(), nullable=False),
        sa.Column("model_version_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("rank", sa.BigInteger(), nullable=False),
        sa.Column("in_pool", sa.Boolean(), nullable=False),
        sa.Column("claimed_until", UtcDateTime(), nullable=True),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("mask_volume_id", sa.Text(), nullable=True),
        sa.Column("coarse_label", sa.JSON(none_as_null=True), nullable=True),
        sa.ForeignKeyConstraint(["case_id"], ["cases.case_id"], name=op.f("fk_predictions_case_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.project_id"], name=op.f("fk_predictions_project_id")),
        sa.PrimaryKeyConstraint("case_id", "model_version_id", name=op.f("pk_predictions")),
    )
    op.create_index("ix_predictions_mask", "predictions", ["case_id", "mask_volume_id"], unique=False)
    op.create_index(
        "ix_predictions_queue",
        "predictions",
        ["project_id", "model_version_id", "state", "rank"],
        unique=False,
    )
    op.create_table(
        "submissions",
        sa.Column("submission_id", sa.Text(), nullable=False),
        sa.Column("project_id", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("case_id", sa.Text(), nullable=False),
        sa.Column("round", sa.Integer(), nullable=False),
        sa.Column("annotator_id", sa.Text(), nullable=False),
        sa.Column("lease_id", sa.Text(), nullable=True),
        sa.Column("mask_volume_id", sa.Text(), nullable=False),
        sa.Column("mask_digest", sa.Text(), nullable=False),
        sa.Column("receipt_id", sa.Text(), nullable=False),
        sa.Column("organ_states", sa.JSON(), nullable=False),
        sa.Column("time_segments", sa.JSON(), nullable=False),
        sa.Column("effort", sa.JSON(), nullable=False),
        sa.Column("coarse_model_version_id", sa.Text(), nullable=True),
        sa.Column("create_time", UtcDateTime(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("supersedes_submission_id", sa.Text(), nullable=True),
        sa.Column("review_state", sa.Text(), nullable=False),
        sa.Column("held_out", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["annotator_id"], ["annotators.annotator_id"], name=op.f("fk_submissions_annotator_id")
        ),
        sa.ForeignKeyConstraint(["case_id"], ["cases.case_id"], name=op.f("fk_submissions_case_id")),
        sa.ForeignKeyConstraint(["lease_id"], ["leases.lease_id"], name=op.f("fk_submissions_lease_id")),
        sa.ForeignKeyConstraint(["project_id"], ["projects.project_id"], name=op.f("fk_submissions_project_id")),
        sa.PrimaryKeyConstraint("submission_id", name=op.f("pk_submissions")),
        sa.UniqueConstraint("case_id", "revision", name=op.f("uq_submissions_case_id_revision")),
        sa.UniqueConstraint("project_id", "sequence", name=op.f("uq_submissions_project_id_sequence")),
    )
    op.create_index("ix_submissions_round", "submissions", ["project_id", "round", "review_state"], unique=False)


def downgrade() -> None:
    op.drop_index("ix_submissions_round", table_name="submissions")
    op.drop_table("submissions")
    op.drop_index("ix_predictions_queue", table_name="predictions")
    op.drop_index("ix_predictions_mask", table_name="predictions")
    op.drop_table("predictions")
    op.drop_index("ix_ledger_project", table_name="ledger")
    op.drop_index("ix_ledger_annotator", table_name="ledger")
    op.drop_table("ledger")
    op.drop_index("ix_leases_mine", table_name="leases")
    op.drop_table("leases")
    op.drop_table("snapshots")
    op.drop_table("seed_cases")
    op.drop_table("rounds")
    op.drop_table("events")
    op.drop_index("ix_cases_ordering", table_name="cases")
    op.drop_index("ix_cases_next", table_name="cases")
    op.drop_table("cases")
    op.drop_index(op.f("ix_requests_answered_at"), table_name="requests")
    op.drop_table("requests")
    op.drop_index(op.f("ix_projects_state"), table_name="projects")
    op.drop_table("projects")
    op.drop_table("annotators")
