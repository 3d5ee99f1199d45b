"""The trainer's tables."""

from __future__ import annotations

import sqlalchemy as sa
from rekindle_servicekit.database import UtcDateTime
from rekindle_servicekit.idempotency import define_requests

metadata = sa.MetaData()

runs = sa.Table(
    "runs",
    metadata,
    sa.Column("run_id", sa.Text, primary_key=True),
    sa.Column("project_id", sa.Text, nullable=False),
    sa.Column("spec", sa.Text, nullable=False),
    sa.Column("snapshot_digest", sa.Text, nullable=False),
    sa.Column("state", sa.Text, nullable=False, index=True),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("created_by", sa.Text, nullable=False),
    sa.Column("created_at", UtcDateTime, nullable=False),
    sa.Column("started_at", UtcDateTime),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("attempts", sa.Integer, nullable=False),
    sa.Column("failures", sa.Integer, nullable=False),
    sa.Column("cancel_requested", sa.Boolean, nullable=False),
    sa.Column("committed_attempt", sa.Integer),
    sa.Column("result", sa.Text),
    sa.Column("version", sa.Integer, nullable=False),
    sa.Index("ix_runs_project_newest", "project_id", "created_at", "run_id"),
)

attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("handle", sa.Text),
    sa.Column("claimed_at", UtcDateTime, nullable=False),
    sa.Column("ended_at", UtcDateTime),
    sa.Column("exit_code", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Column("gpus", sa.Integer),
    sa.Column("began_at", UtcDateTime),
    sa.Column("seen_at", UtcDateTime),
    sa.Column("is_at_work", sa.Boolean),
    sa.Column("worked_seconds", sa.Double),
)

training_limits = sa.Table(
    "training_limits",
    metadata,
    sa.Column("project_id", sa.Text, primary_key=True),
    sa.Column("version", sa.BigInteger, nullable=False),
    sa.Column("record", sa.Text, nullable=False),
)

metrics = sa.Table(
    "metrics",
    metadata,
    sa.Column("run_id", sa.ForeignKey("runs.run_id"), primary_key=True),
    sa.Column("cursor", sa.BigInteger, primary_key=True, autoincrement=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("number", sa.Integer, nullable=False),
    sa.Column("seen_at", UtcDateTime, nullable=False),
    sa.Column("record", sa.Text, nullable=False),
    sa.UniqueConstraint("run_id", "attempt", "number", name="uq_metrics_number"),
)

requests = define_requests(metadata)
