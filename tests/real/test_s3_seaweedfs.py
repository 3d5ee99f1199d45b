"""What holds on every S3 server, on SeaweedFS."""

from __future__ import annotations

import pytest
from servers.seaweedfs import SeaweedfsServer
from suites.s3 import *  # noqa: F403 - the tests of the suite


@pytest.fixture
def server(seaweedfs: SeaweedfsServer) -> SeaweedfsServer:
    return seaweedfs
