"""Servers that all tests of a run share; each starts with the first test that asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from servers.kubernetes import TOOLS, running_cluster
from servers.minio import MinioServer
from servers.postgresql import PostgresqlServer
from servers.seaweedfs import SeaweedfsServer
from servers.triton import TritonServer


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgresqlServer]:
    """PostgreSQL; a test makes a database of its own in it."""
    # Not below pytest's folder: each further test run on the machine closes that to other accounts again.
    with (
        TemporaryDirectory(prefix="rekindle-postgresql-", ignore_cleanup_errors=True) as folder,
        PostgresqlServer(Path(folder), durable=False) as server,
    ):
        yield server


@pytest.fixture(scope="session")
def minio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MinioServer]:
    """MinIO; a test makes a bucket of its own in it."""
    with MinioServer(tmp_path_factory.mktemp("minio")) as server:
        yield server


@pytest.fixture(scope="session")
def seaweedfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedfsServer]:
    """SeaweedFS; a test makes a bucket of its own in it."""
    with SeaweedfsServer(tmp_path_factory.mktemp("seaweedfs")) as server:
        yield server


@pytest.fixture(scope="session")
def triton(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TritonServer]:
    """Triton, on a folder as its repository; a test names its models by an installation of its own."""
    with TritonServer(tmp_path_factory.mktemp("triton")) as server:
        yield server


@pytest.fixture(scope="session")
def kubeconfig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Of an administrator of a Kubernetes control plane without nodes; a test makes a namespace of its own in it."""
    if not TOOLS.exists():
        pytest.skip(f"no Kubernetes API server at hand: {TOOLS} is not there")
    with running_cluster(tmp_path_factory.mktemp("kubernetes")) as path:
        yield path


#: Gives the URL of a new database, its schema made by the function that it is given.
MakeDatabase = Callable[[Callable[[str], object]], str]


@pytest.fixture(params=["sqlite", "postgresql"])
def make_database(request: pytest.FixtureRequest, tmp_path: Path) -> MakeDatabase:
    """New databases of each kind that state is kept in."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql").create_database
    count = iter(range(1000))
    return lambda _prepare: f"sqlite:///{tmp_path / f'state-{next(count)}.sqlite3'}"
