"""A file of several chunks, and an upload of it that has begun."""

import numpy as np
import pytest
from upload_tool import Tool


@pytest.fixture
def phantom(phantom):
    """With noise, so that its file has several chunks."""
    phantom.image += np.random.default_rng(2).integers(0, 20, phantom.image.shape, dtype=np.int16)
    return phantom


@pytest.fixture
def tool(running, phantom, tmp_path):
    return Tool(running, phantom.file(tmp_path).read_bytes())


@pytest.fixture
def begun(tool):
    """An upload of which one chunk has arrived."""
    tool.create()
    tool.put(0)
    return tool
