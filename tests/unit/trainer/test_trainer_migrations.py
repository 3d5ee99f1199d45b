"""The trainer's migrations."""

from __future__ import annotations

from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from rekindle_trainer.state import State
from rekindle_trainer.state.tables import metadata


def test_migrations_lead_to_the_tables(state: State) -> None:
    """A migrated database has no column, index or constraint more or less than the code's tables."""
    with state.engine.connect() as connection:  # the schema is nothing that the state itself tells of
        difference = compare_metadata(MigrationContext.configure(connection), metadata)
    assert [] == difference
