"""The scheduler's tables, the same in SQLite and PostgreSQL."""

from __future__ import annotations

import sqlalchemy as sa
from rekindle_servicekit.database import UtcDateTime
from rekindle_servicekit.idempotency import define_requests

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

requests = define_requests(metadata)


def _project_id(*, primary_key: bool = False) -> sa.Column[str]:
    project_id = sa.ForeignKey("projects.project_id")
    return sa.Column("project_id", project_id, nullable=False, primary_key=primary_key)


annotators = sa.Table(
    "annotators",
    metadata,
    sa.Column("annotator_id", sa.Text, primary_key=True),
    sa.Column("issuer", sa.Text, nullable=False),
    sa.Column("subject", sa.Text, nullable=False),
    sa.Column("display_name", sa.Text, nullable=False),
    sa.UniqueConstraint("issuer", "subject"),
)

projects = sa.Table(
    "projects",
    metadata,
    sa.Column("project_id", sa.Text, primary_key=True),
    # Order of creation, for lists.
    sa.Column("sequence", sa.BigInteger, nullable=False, unique=True),
    sa.Column("display_name", sa.Text, nullable=False),
    sa.Column("organs", sa.JSON, nullable=False),
    sa.Column("target_modality", sa.Text, nullable=False),
    sa.Column("policy", sa.JSON, nullable=False),
    sa.Column("policy_version", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("state_reason", sa.Text, nullable=False),
    sa.Column("registration_open", sa.Boolean, nullable=False),
    sa.Column("create_time", UtcDateTime, nullable=False),
    sa.Column("active_model_version_id", sa.Text),
    # Numbers given out so far; the row's lock keeps them in order.
    sa.Column("last_cursor", sa.BigInteger, nullable=False),
    sa.Column("last_seed_case", sa.BigInteger, nullable=False),
    sa.Column("last_case", sa.BigInteger, nullable=False),
    sa.Column("last_submission", sa.BigInteger, nullable=False),
)

seed_cases = sa.Table(
    "seed_cases",
    metadata,
    sa.Column("seed_case_id", sa.Text, primary_key=True),
    _project_id(),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("modality", sa.Text, nullable=False),
    sa.Column("image_volume_id", sa.Text, nullable=False),
    sa.Column("mask_volume_id", sa.Text, nullable=False),
    sa.Column("receipt_id", sa.Text, nullable=False),
    sa.Column("image_digest", sa.Text, nullable=False),
    sa.Column("mask_digest", sa.Text, nullable=False),
    sa.Column("organ_states", sa.JSON, nullable=False),
    sa.UniqueConstraint("project_id", "image_volume_id"),
    sa.UniqueConstraint("project_id", "sequence"),
)

cases = sa.Table(
    "cases",
    metadata,
    sa.Column("case_id", sa.Text, primary_key=True),
    _project_id(),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("volume_id", sa.Text, nullable=False),
    sa.Column("image_digest", sa.Text, nullable=False),
    sa.Column("group_key", sa.Text, nullable=False),
    sa.Column("held_out", sa.Boolean, nullable=False),
    sa.Column("mark", sa.Text, nullable=False),
    sa.Column("register_time", UtcDateTime, nullable=False),
    # The round that selected it, 0 for none, and its place there.
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("rank", sa.Integer, nullable=False),
    # Place in the policy's ordering when a round was last selected.
    sa.Column("ordering_rank", sa.BigInteger, nullable=False),
    # The newest lease's; 0 before the first.
    sa.Column("fencing_token", sa.BigInteger, nullable=False),
    sa.Column("lease_id", sa.Text),
    sa.Column("lease_expire_time", UtcDateTime),
    # The submission that counts, and the one that waits for a reviewer.
    sa.Column("submission_id", sa.Text),
    sa.Column("pending_submission_id", sa.Text),
    # The coarse label to show, and the version that made it.
    sa.Column("coarse_label", sa.JSON(none_as_null=True)),
    sa.Column("coarse_model_version_id", sa.Text),
    # When it was erased: nothing but its ids is left.
    sa.Column("purged_at", UtcDateTime),
    sa.UniqueConstraint("project_id", "volume_id"),
    sa.Index("ix_cases_group", "project_id", "group_key"),
    sa.UniqueConstraint("project_id", "sequence"),
    sa.Index("ix_cases_next", "project_id", "round", "submission_id", "rank"),
    # The next case: only what is still to be labelled, so that the first row is the answer however many are done.
    sa.Index(
        "ix_cases_open",
        "project_id",
        "round",
        "rank",
        sqlite_where=sa.text("submission_id IS NULL"),
        postgresql_where=sa.text("submission_id IS NULL"),
    ),
    sa.Index("ix_cases_ordering", "project_id", "ordering_rank", "sequence"),
)

leases = sa.Table(
    "leases",
    metadata,
    sa.Column("lease_id", sa.Text, primary_key=True),
    _project_id(),
    sa.Column("case_id", sa.ForeignKey("cases.case_id"), nullable=False),
    sa.Column("fencing_token", sa.BigInteger, nullable=False),
    sa.Column("annotator_id", sa.ForeignKey("annotators.annotator_id"), nullable=False),
    sa.Column("start_time", UtcDateTime, nullable=False),
    sa.Column("expire_time", UtcDateTime, nullable=False),
    sa.Column("end_time", UtcDateTime),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("coarse_model_version_id", sa.Text),
    # Why it was released, in the annotator's words.
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("session_id", sa.Text),
    sa.Column("tool", sa.Text, nullable=False, server_default=""),
    # The label that it is to correct; none for a case that was open.
    sa.Column("revises_submission_id", sa.Text),
    sa.UniqueConstraint("case_id", "fencing_token"),
    sa.Index("ix_leases_mine", "project_id", "annotator_id", "state"),
    sa.Index("ix_leases_session", "session_id"),
)

submissions = sa.Table(
    "submissions",
    metadata,
    sa.Column("submission_id", sa.Text, primary_key=True),
    _project_id(),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("case_id", sa.ForeignKey("cases.case_id"), nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("annotator_id", sa.ForeignKey("annotators.annotator_id"), nullable=False),
    sa.Column("lease_id", sa.ForeignKey("leases.lease_id")),
    sa.Column("mask_volume_id", sa.Text, nullable=False),
    sa.Column("mask_digest", sa.Text, nullable=False),
    sa.Column("receipt_id", sa.Text, nullable=False),
    sa.Column("organ_states", sa.JSON, nullable=False),
    sa.Column("time_segments", sa.JSON, nullable=False),
    sa.Column("effort", sa.JSON, nullable=False),
    sa.Column("coarse_model_version_id", sa.Text),
    sa.Column("create_time", UtcDateTime, nullable=False),
    sa.Column("revision", sa.Integer, nullable=False),
    sa.Column("supersedes_submission_id", sa.Text),
    sa.Column("review_state", sa.Text, nullable=False),
    sa.Column("held_out", sa.Boolean, nullable=False),
    # What became of it.
    sa.Column("reviewed_by", sa.Text),
    sa.Column("review_time", UtcDateTime),
    sa.Column("review_comment", sa.Text, nullable=False, server_default=""),
    sa.Column("withdraw_time", UtcDateTime),
    sa.Column("withdraw_reason", sa.Text, nullable=False, server_default=""),
    sa.Column("started_from_submission_id", sa.Text),
    # The first round whose snapshot holds it, 0 for none.
    sa.Column("snapshot_round", sa.Integer, nullable=False, server_default="0"),
    sa.UniqueConstraint("project_id", "sequence"),
    sa.UniqueConstraint("case_id", "revision"),
    sa.Index("ix_submissions_round", "project_id", "round", "review_state"),
)

#: One row for each case that ever had a label: what was delivered last, and whether something is owed.
publications = sa.Table(
    "publications",
    metadata,
    sa.Column("case_id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("owed", sa.Boolean, nullable=False),
    sa.Column("owed_at", UtcDateTime, nullable=False),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("submission_id", sa.Text),
    sa.Column("mask_volume_id", sa.Text),
    sa.Column("origin", sa.Text),
    sa.Column("retracted", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("ix_publications_owed", "owed", "owed_at"),
)

drafts = sa.Table(
    "drafts",
    metadata,
    sa.Column("draft_id", sa.Text, primary_key=True),
    _project_id(),
    sa.Column("case_id", sa.ForeignKey("cases.case_id"), nullable=False),
    sa.Column("lease_id", sa.ForeignKey("leases.lease_id"), nullable=False),
    sa.Column("annotator_id", sa.ForeignKey("annotators.annotator_id"), nullable=False),
    # Order of beginning, for lists.
    sa.Column("begin_time", UtcDateTime, nullable=False),
    sa.Column("save_time", UtcDateTime, nullable=False),
    sa.Column("late", sa.Boolean, nullable=False),
    # The whole draft.
    sa.Column("record", sa.JSON, nullable=False),
    sa.Index("ix_drafts_mine", "project_id", "annotator_id", "begin_time", "draft_id"),
    sa.Index("ix_drafts_case", "case_id", "annotator_id"),
    sa.Index("ix_drafts_lease", "lease_id"),
)

sessions = sa.Table(
    "sessions",
    metadata,
    sa.Column("session_id", sa.Text, primary_key=True),
    _project_id(),
    sa.Column("annotator_id", sa.ForeignKey("annotators.annotator_id"), nullable=False),
    sa.Column("minutes", sa.Double, nullable=False),
    sa.Column("predicted_minutes", sa.Double, nullable=False),
    sa.Column("detached", sa.Boolean, nullable=False),
    sa.Column("create_time", UtcDateTime, nullable=False),
    sa.Column("expire_time", UtcDateTime, nullable=False),
    sa.Column("end_time", UtcDateTime),
    sa.Index("ix_sessions_mine", "project_id", "annotator_id", "create_time", "session_id"),
)

rounds = sa.Table(
    "rounds",
    metadata,
    _project_id(primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    # Grows with every change: what was decided on an older one does not apply any more.
    sa.Column("version", sa.BigInteger, nullable=False),
    # The whole round but for what is counted from submissions.
    sa.Column("record", sa.JSON, nullable=False),
)

snapshots = sa.Table(
    "snapshots",
    metadata,
    _project_id(primary_key=True),
    sa.Column("round", sa.Integer, primary_key=True),
    sa.Column("digest", sa.Text, nullable=False),
    sa.Column("record", sa.JSON, nullable=False),
)

predictions = sa.Table(
    "predictions",
    metadata,
    sa.Column("case_id", sa.ForeignKey("cases.case_id"), primary_key=True),
    sa.Column("model_version_id", sa.Text, primary_key=True),
    _project_id(),
    sa.Column("state", sa.Text, nullable=False),
    # Order of work, and whether the next round waits for it.
    sa.Column("rank", sa.BigInteger, nullable=False),
    sa.Column("in_pool", sa.Boolean, nullable=False),
    # Until when somebody is at it; others leave it alone.
    sa.Column("claimed_until", UtcDateTime),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("mask_volume_id", sa.Text),
    sa.Column("coarse_label", sa.JSON(none_as_null=True)),
    sa.Index("ix_predictions_queue", "project_id", "model_version_id", "state", "rank"),
    sa.Index("ix_predictions_mask", "case_id", "mask_volume_id"),
)

ledger = sa.Table(
    "ledger",
    metadata,
    # The submission or the lease that was released, and the segment's index there.
    sa.Column("source_id", sa.Text, primary_key=True),
    sa.Column("segment", sa.Integer, primary_key=True),
    _project_id(),
    sa.Column("submission_id", sa.Text),
    sa.Column("lease_id", sa.Text),
    sa.Column("case_id", sa.ForeignKey("cases.case_id"), nullable=False),
    sa.Column("annotator_id", sa.ForeignKey("annotators.annotator_id"), nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("held_out", sa.Boolean, nullable=False),
    sa.Column("coarse_model_version_id", sa.Text),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),
    sa.Column("start_time", UtcDateTime, nullable=False),
    sa.Column("active_seconds", sa.Double, nullable=False),
    sa.Column("tool", sa.Text, nullable=False),
    sa.Index("ix_ledger_project", "project_id", "source_id", "segment"),
    sa.Index("ix_ledger_annotator", "project_id", "annotator_id", "start_time"),
    sa.Index("ix_ledger_lease", "lease_id"),
)

events = sa.Table(
    "events",
    metadata,
    _project_id(primary_key=True),
    sa.Column("cursor", sa.BigInteger, primary_key=True),
    sa.Column("time", UtcDateTime, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),
    sa.Column("message", sa.Text, nullable=False),
    sa.Column("round", sa.Integer, nullable=False),
    sa.Column("details", sa.JSON, nullable=False),
)

purges = sa.Table(
    "purges",
    metadata,
    sa.Column("purge_id", sa.Text, primary_key=True),
    _project_id(),
    sa.Column("sequence", sa.BigInteger, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    # The whole purge.
    sa.Column("record", sa.JSON, nullable=False),
    sa.UniqueConstraint("project_id", "sequence"),
)
