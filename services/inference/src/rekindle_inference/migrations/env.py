"""What Alembic runs."""

from rekindle_inference.state.tables import metadata
from rekindle_servicekit.database import run_migrations

run_migrations(metadata)
