"""Which object store the settings ask for."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic_settings import SettingsConfigDict
from rekindle.errors import DependencyUnavailable, InvalidInput
from rekindle_servicekit.object_store import ObjectStoreSettings, open_store
from rekindle_servicekit.objects import DirectoryObjects, PrefixedObjects
from rekindle_servicekit.s3 import S3Objects
from rekindle_servicekit.settings import settings_table


class Settings(ObjectStoreSettings):
    model_config = SettingsConfigDict(env_prefix="REKINDLE_TEST_")


KEYS: dict[str, Any] = {"objects_access_key": "who", "objects_secret_key": "hunter2"}


def test_without_a_url_it_is_the_directory(tmp_path: Path) -> None:
    """The embedded default, which needs nothing."""
    store = open_store(Settings.load(), tmp_path / "objects")
    assert isinstance(store, DirectoryObjects)
    assert tmp_path / "objects" == store.root


def test_a_file_url_is_a_directory(tmp_path: Path) -> None:
    """With its escapes."""
    store = open_store(Settings.load(objects_url=f"file://{tmp_path}/my%20objects"), tmp_path / "other")
    assert isinstance(store, DirectoryObjects)
    assert tmp_path / "my objects" == store.root


def test_a_bucket_is_not_asked_for_anything_yet(tmp_path: Path) -> None:
    """So a service starts while it is away; a prefix keeps to a part of it."""
    endpoint = "http://127.0.0.1:9"
    whole = open_store(Settings.load(objects_url="s3://volumes", objects_endpoint=endpoint, **KEYS), tmp_path)
    part = open_store(Settings.load(objects_url="s3://volumes/a/b/", objects_endpoint=endpoint, **KEYS), tmp_path)
    assert isinstance(whole, S3Objects)
    assert isinstance(part, PrefixedObjects)
    address = part.presign_get("volumes/x", 60)
    assert address is not None
    assert address.startswith("http://127.0.0.1:9/volumes/a/b/volumes/x?")


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"objects_url": "ftp://host/x", **KEYS}, "OBJECTS_URL"),
        ({"objects_url": "s3:///prefix", **KEYS}, "OBJECTS_URL"),
        ({"objects_url": "file://elsewhere/x"}, "OBJECTS_URL"),
        ({"objects_url": "s3://bucket", "objects_secret_key": "hunter2"}, "OBJECTS_ACCESS_KEY"),
        ({"objects_url": "s3://bucket", "objects_access_key": "who"}, "OBJECTS_SECRET_KEY"),
        ({"objects_url": "s3://bucket", "objects_ca_file": "/nowhere/ca.pem", **KEYS}, "OBJECTS_CA_FILE"),
        ({"objects_url": "s3://bucket", "objects_endpoint": "host:9000", **KEYS}, "endpoint"),
        ({"objects_url": "s3://bucket", "objects_encryption": "rot13", **KEYS}, "encryption"),
        ({"objects_url": "s3://Bucket", "objects_endpoint": "http://host", **KEYS}, "bucket"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], named: str, tmp_path: Path) -> None:
    """InvalidInput says which one, and repeats no secret."""
    with pytest.raises(InvalidInput, match=named) as caught:
        open_store(Settings.load(**settings), tmp_path)
    assert "hunter2" not in str(caught.value)


def test_secrets_are_neither_printed_nor_shown(tmp_path: Path) -> None:
    """Not with the settings, nor in their table."""
    settings = Settings.load(objects_url="s3://bucket", **KEYS)
    assert "hunter2" not in f"{settings!r} {settings} {settings_table(Settings)}"


def test_a_full_disk_is_told_as_such(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DependencyUnavailable that names the object store, and nothing is left of the object."""
    objects = DirectoryObjects(tmp_path)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DependencyUnavailable, match="the object store is full") as caught:
        objects.put("volumes/a", b"voxels")
    assert "OBJECT_STORE_FULL" == caught.value.reason
    assert [] == [path for path in tmp_path.rglob("*") if path.is_file()]
