"""The S3 adapter on MinIO: what every server must do, and what only a configured one does."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from certificates import Authority
from rekindle.errors import DependencyUnavailable
from rekindle_servicekit.s3 import S3Objects
from servers.minio import KMS_KEY, MinioServer
from servers.s3 import bucket_of, options_of
from suites.s3 import *  # noqa: F403 - the tests of the suite


@pytest.fixture
def server(minio: MinioServer) -> MinioServer:
    return minio


@pytest.mark.parametrize(("encryption", "expected"), [("s3", "AES256"), (f"kms:{KMS_KEY}", "aws:kms")])
def test_the_server_encrypts_what_is_stored(minio: MinioServer, encryption: str, expected: str) -> None:
    """As it is told, in one part and in many; and no address is given that would go around it."""
    objects = bucket_of(minio, encryption=encryption, part_bytes=5 * 1024 * 1024)
    for key, data in (("volumes/a", b"voxels"), ("volumes/b", bytes(11 * 1024 * 1024))):
        objects.put(key, data)
        objects.put(key, data)
        assert data == objects.get(key)
        headers = minio.client().stat_object(objects._bucket, key).metadata
        assert expected == headers["x-amz-server-side-encryption"]
    assert objects.presign_put("uploads/a", 60) is None


def test_a_server_that_hangs_is_given_up(minio: MinioServer) -> None:
    """It keeps its connections and says nothing: the caller hears so after the time-out, and then it is as before."""
    objects = bucket_of(minio, read_timeout_s=0.3)
    objects.put("volumes/a", b"1")
    minio.pause()
    try:
        began = time.monotonic()
        with pytest.raises(DependencyUnavailable, match="the object store cannot be reached"):
            objects.get("volumes/a")
        assert time.monotonic() - began < 5
    finally:
        minio.resume()
    assert b"1" == objects.get("volumes/a")


def test_a_missing_bucket_is_told_as_such(minio: MinioServer) -> None:
    """With what to do about it."""
    objects = S3Objects(options_of(minio, f"missing-{uuid4().hex}"))
    with pytest.raises(DependencyUnavailable, match="has no such bucket: create it"):
        objects.put("volumes/a", b"1")


def test_an_object_has_a_limit_of_time(minio: MinioServer) -> None:
    """However steadily its bytes come."""
    objects = bucket_of(minio, total_timeout_s=0.0)
    with pytest.raises(DependencyUnavailable, match="takes too long"):
        objects.put("volumes/a", b"1")


def test_clients_get_addresses_at_the_public_endpoint(minio: MinioServer) -> None:
    """Where they reach the store by another name than the services do."""
    objects = bucket_of(minio, public_endpoint="https://store.example:9443")
    address = objects.presign_get("volumes/a", 60)
    assert address is not None
    assert address.startswith(f"https://store.example:9443/{objects._bucket}/volumes/a?")


@pytest.fixture(scope="module")
def private(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[MinioServer, Path]]:
    """A MinIO that speaks TLS, and the file of the authority that its certificate is from."""
    folder = tmp_path_factory.mktemp("certificates")
    (folder / "CAs").mkdir()
    authority = Authority(folder)
    issued = authority.issue_server()
    issued.certificate.rename(folder / "public.crt")
    issued.key.rename(folder / "private.key")
    (folder / "CAs" / "ca.crt").write_bytes(authority.certificate.read_bytes())
    with MinioServer(tmp_path_factory.mktemp("private-minio"), certificates=folder) as server:
        yield server, authority.certificate


def test_a_private_authority_is_trusted_where_it_is_named(private: tuple[MinioServer, Path]) -> None:
    """Objects of one part and of many go over TLS with it."""
    server, authority = private
    objects = bucket_of(server, ca_file=authority, part_bytes=5 * 1024 * 1024)
    for key, data in (("volumes/a", b"voxels"), ("volumes/b", bytes(11 * 1024 * 1024))):
        objects.put(key, data)
        assert data == objects.get(key)


def test_an_unknown_authority_is_refused(private: tuple[MinioServer, Path], tmp_path: Path) -> None:
    """Without its file, and with that of another one, nothing is sent, and the error says what to set."""
    server, _ = private
    for trusted in (None, Authority(tmp_path, "other").certificate):
        objects = S3Objects(options_of(server, "bucket", ca_file=trusted))
        with pytest.raises(DependencyUnavailable, match="certificate that is not trusted"):
            objects.put("volumes/a", b"voxels")
