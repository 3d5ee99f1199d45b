"""Servers that all tests of a run share; each starts with the first test that asks for it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from servers.minio import MinioServer
from servers.postgresql import PostgresqlServer
from servers.seaweedfs import SeaweedfsServer


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresqlServer]:
    """PostgreSQL; a test makes a database of its own in it."""
    with PostgresqlServer(tmp_path_factory.mktemp("postgresql"), durable=False) as server:
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


#: Gives the URL of a new database, its schema made by the function that it is given.
MakeDatabase = Callable[[Callable[[str], object]], str]


@pytest.fixture(params=["sqlite", "postgresql"])
def make_database(request: pytest.FixtureRequest, tmp_path: Path) -> MakeDatabase:
    """New databases of each kind that state is kept in."""
    if request.param == "postgresql":
        return request.getfixturevalue("postgresql").create_database
    count = iter(range(1000))
    return lambda _prepare: f"sqlite:///{tmp_path / f'state-{next(count)}.sqlite3'}"
