"""Settings and servers for every test."""

from __future__ import annotations

from hypothesis import settings
from servers.fixtures import make_database, minio, postgresql, seaweedfs

__all__ = ["make_database", "minio", "postgresql", "seaweedfs"]

# The same examples in every run: a red build is the change's doing, and anybody can make it red again.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
