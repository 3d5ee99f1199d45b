"""Alembic's entry: brings the scheduler's tables to a revision."""

from rekindle_servicekit.database import run_migrations

from rekindle_scheduler.state.tables import metadata

run_migrations(metadata)
