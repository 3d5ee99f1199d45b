"""Settings and servers for every test."""

from __future__ import annotations

import pytest
from hypothesis import settings
from servers.fixtures import kubeconfig, make_database, minio, postgresql, seaweedfs, triton

__all__ = ["kubeconfig", "make_database", "minio", "postgresql", "seaweedfs", "triton"]

pytest.register_assert_rewrite("suites")

# The same examples in every run: a red build is the change's doing, and anybody can make it red again.
settings.register_profile("repeatable", derandomize=True, deadline=None)
settings.load_profile("repeatable")
