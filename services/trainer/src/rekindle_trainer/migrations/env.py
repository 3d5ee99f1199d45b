"""Brings a database's schema up to date; called by rekindle_servicekit.database.migrate."""

from rekindle_servicekit.database import run_migrations
from rekindle_trainer.state.tables import metadata

run_migrations(metadata)
