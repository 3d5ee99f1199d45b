"""The trainer's migrations."""

from __future__ import annotations

from pathlib import Path

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from rekindle_servicekit import database
from rekindle_trainer.adapters.sql import MIGRATIONS
from rekindle_trainer.adapters.tables import metadata


def test_migrations_lead_to_the_tables(tmp_path: Path) -> None:
    """A migrated database has no column, index or constraint more or less than the code's tables."""
    engine = database.make_engine(f"sqlite:///{tmp_path / 'db.sqlite'}")
    database.migrate(engine, MIGRATIONS)
    with engine.connect() as connection:
        difference = compare_metadata(MigrationContext.configure(connection), metadata)
    engine.dispose()
    assert [] == difference
