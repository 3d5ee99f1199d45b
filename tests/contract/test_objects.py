"""What every implementation of Objects does alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from rekindle_servicekit.objects import DirectoryObjects, MemoryObjects, Objects, PrefixedObjects
from servers.s3 import bucket_of
from suites.objects import *  # noqa: F403 - the tests of the suite

#: A further embedded implementation joins the suite by one line here.
IMPLEMENTATIONS: dict[str, Callable[[Path], Objects]] = {
    "memory": lambda _: MemoryObjects(),
    "directory": DirectoryObjects,
    "prefixed": lambda folder: PrefixedObjects(DirectoryObjects(folder), "installation-a"),
}


@pytest.fixture(params=[*IMPLEMENTATIONS, "minio"])
def objects(request: pytest.FixtureRequest, tmp_path: Path) -> Objects:
    """An empty store of each implementation."""
    if request.param == "minio":
        return bucket_of(request.getfixturevalue("minio"))
    return IMPLEMENTATIONS[request.param](tmp_path / "objects")


@pytest.mark.parametrize("name", ["memory", "directory", "prefixed"])
def test_embedded_stores_have_no_addresses(name: str, tmp_path: Path) -> None:
    """Nobody serves them over HTTP: what is asked for an address says None, and the caller goes another way."""
    objects = IMPLEMENTATIONS[name](tmp_path / "objects")
    assert (None, None) == (objects.presign_put("uploads/a/whole", 60), objects.presign_get("volumes/a", 60))


class _Addressed(MemoryObjects):
    """Stands for a store that has addresses."""

    def presign_put(self, key: str, expires_s: float) -> str | None:
        return f"put {key} for {expires_s:.0f} s"

    def presign_get(self, key: str, expires_s: float) -> str | None:
        return f"get {key} for {expires_s:.0f} s"


def test_an_address_in_a_part_of_a_store_has_its_prefix() -> None:
    """The address of an object is that of the key with the installation's prefix."""
    objects = PrefixedObjects(_Addressed(), "installation-a")
    assert "put installation-a/uploads/a for 60 s" == objects.presign_put("uploads/a", 60)
    assert "get installation-a/volumes/a for 5 s" == objects.presign_get("volumes/a", 5)
