"""The suite of object stores on SeaweedFS: another maker's S3, so that nothing leans on one server's ways."""

from __future__ import annotations

import pytest
from rekindle_servicekit.objects import Objects
from servers.s3 import bucket_of
from servers.seaweedfs import SeaweedfsServer
from suites.objects import *  # noqa: F403 - the tests of the suite


@pytest.fixture
def objects(seaweedfs: SeaweedfsServer) -> Objects:
    """A new bucket."""
    return bucket_of(seaweedfs)
