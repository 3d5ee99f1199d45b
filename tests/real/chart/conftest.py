"""What releases of the chart are run on."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster.node import Node
from cluster.site import NAMESPACE, Site, running_site


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Databases of their own for each release, one bucket."""
    with running_site(tmp_path_factory.mktemp("site")) as site:
        yield site


@pytest.fixture
def node(site: Site, tmp_path: Path) -> Iterator[Node]:
    """An empty one beside the site's servers."""
    node = Node(tmp_path / "pods", NAMESPACE, site.outside)
    yield node
    node.close()
