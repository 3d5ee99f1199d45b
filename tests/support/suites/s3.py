"""What holds on every S3 server; the test module that takes these tests defines `server`."""

from __future__ import annotations

import hashlib
import io
import time
import tracemalloc
import urllib.request
from pathlib import Path
from urllib.error import HTTPError

import pytest
from rekindle.errors import AlreadyExists, DependencyUnavailable, IntegrityError, InvalidInput, NotFound
from rekindle_servicekit.s3 import S3Objects
from servers.minio import MinioServer
from servers.proxy import Proxy
from servers.s3 import bucket_of, options_of
from servers.seaweedfs import SeaweedfsServer

Server = MinioServer | SeaweedfsServer
MIB = 1024 * 1024


def write_big(path: Path, size: int) -> str:
    """A file that repeats nowhere near; its SHA-256."""
    digest = hashlib.sha256()
    with path.open("wb") as stream:
        for number in range(size // MIB):
            block = hashlib.shake_128(b"%d" % number).digest(MIB)
            stream.write(block)
            digest.update(block)
    return digest.hexdigest()


def test_a_big_object_goes_in_and_out_in_parts(server: Server, tmp_path: Path) -> None:
    """80 MiB in five parts come back whole, and never take more memory than a few parts."""
    objects, source = bucket_of(server), tmp_path / "big"
    expected = write_big(source, 80 * MIB)
    tracemalloc.start()
    objects.put_file("volumes/big", source)
    digest = hashlib.sha256()
    with objects.open("volumes/big") as stream:
        while block := stream.read(3 * MIB):
            digest.update(block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert expected == digest.hexdigest()
    assert 80 * MIB == objects.size("volumes/big")
    assert peak < 50 * MIB
    with source.open("rb") as stream:
        stream.seek(33 * MIB - 5)
        assert stream.read(10) == objects.read_range("volumes/big", 33 * MIB - 5, 10)


def test_the_same_file_again_is_not_sent_again(server: Server, tmp_path: Path) -> None:
    """What is stored already is told by its digest: ten times the bytes of a request go, not those of the file."""
    source = tmp_path / "big"
    write_big(source, 8 * MIB)
    with Proxy(server.port) as line:
        objects = bucket_of(server, endpoint=f"http://127.0.0.1:{line.port}")
        objects.put_file("volumes/big", source)
        line.break_after(MIB)
        objects.put_file("volumes/big", source)
        source.write_bytes(source.read_bytes()[:-1] + b"x")
        with pytest.raises(AlreadyExists):
            objects.put_file("volumes/big", source)


def test_bytes_damaged_on_the_way_in_are_not_stored(server: Server) -> None:
    """The server compares what it got with the digest of the request; there is no object then."""
    with Proxy(server.port) as line:
        line.damage(b"voxels of liver", b"voxels of LIVER")
        objects = bucket_of(server, endpoint=f"http://127.0.0.1:{line.port}")
        with pytest.raises(DependencyUnavailable, match="other bytes than were sent"):
            objects.put("canonical/a", b"voxels of liver")
        assert not objects.exists("canonical/a")


def test_bytes_damaged_in_the_store_are_told(server: Server) -> None:
    """An object whose bytes are no longer those of its digest is IntegrityError, in one piece and as a stream."""
    objects = bucket_of(server)
    digest = hashlib.sha256(b"what was stored").hexdigest()
    server.client().put_object(
        objects._bucket, "canonical/a", io.BytesIO(b"what is there!!"), 15, metadata={"sha256": digest}
    )
    with pytest.raises(IntegrityError) as caught:
        objects.get("canonical/a")
    assert "OBJECT_CORRUPT" == caught.value.reason
    with objects.open("canonical/a") as stream, pytest.raises(IntegrityError):
        list(iter(lambda: stream.read(4), b""))


def test_a_broken_line_is_taken_up_again(server: Server, tmp_path: Path) -> None:
    """A download that loses its connection half-way goes on from there."""
    source = tmp_path / "big"
    expected = write_big(source, 8 * MIB)
    bucket = bucket_of(server)
    bucket.put_file("volumes/big", source)
    with Proxy(server.port) as line:
        objects = S3Objects(options_of(server, bucket._bucket, endpoint=f"http://127.0.0.1:{line.port}"))
        line.break_after(3 * MIB, down=True)
        with objects.open("volumes/big") as stream:
            assert expected == hashlib.file_digest(stream, "sha256").hexdigest()


def test_an_absent_server_is_named_and_comes_back(server: Server) -> None:
    """Every method says that the object store cannot be reached, soon, and works again once it can."""
    with Proxy(server.port) as line:
        objects = bucket_of(server, endpoint=f"http://127.0.0.1:{line.port}")
        objects.put("volumes/a", b"1")
        line.cut()
        for call in (
            lambda: objects.put("volumes/b", b"2"),
            lambda: objects.get("volumes/a"),
            lambda: objects.exists("volumes/a"),
            lambda: list(objects.list()),
            lambda: objects.delete("volumes/a"),
        ):
            began = time.monotonic()
            with pytest.raises(DependencyUnavailable, match="the object store cannot be reached") as caught:
                call()
            assert "OBJECT_STORE_UNAVAILABLE" == caught.value.reason
            assert time.monotonic() - began < 10
        line.heal()
        assert b"1" == objects.get("volumes/a")
        objects.put("volumes/b", b"2")


def test_a_presigned_address_takes_and_gives_bytes(server: Server) -> None:
    """Anybody who has it can send the object or fetch it, and nobody without."""
    objects = bucket_of(server)
    address = objects.presign_put("uploads/u1/whole", 60)
    assert address is not None
    with urllib.request.urlopen(urllib.request.Request(address, data=b"a scan", method="PUT")) as answer:
        assert 200 == answer.status
    assert b"a scan" == objects.get("uploads/u1/whole")
    fetch = objects.presign_get("uploads/u1/whole", 60)
    assert fetch is not None
    with urllib.request.urlopen(fetch) as answer:
        assert b"a scan" == answer.read()
    for closed in (fetch.split("?")[0], fetch.replace("u1", "u2")):
        with pytest.raises(HTTPError) as refused:
            urllib.request.urlopen(closed)
        assert 403 == refused.value.code
        refused.value.close()


def test_an_object_without_a_digest_is_compared_by_its_bytes(server: Server) -> None:
    """What came by a presigned address can be put again as the same, and not as another."""
    objects = bucket_of(server)
    server.client().put_object(objects._bucket, "weights/a", io.BytesIO(b"weights"), 7)
    objects.put("weights/a", b"weights")
    with pytest.raises(AlreadyExists):
        objects.put("weights/a", b"WEIGHTS")


def test_a_file_that_changes_meanwhile_is_not_stored(server: Server, tmp_path: Path) -> None:
    """Its digest was taken first; where the bytes that follow differ, no object appears."""
    source = tmp_path / "changing"
    write_big(source, 20 * MIB)
    objects = bucket_of(server, part_bytes=5 * MIB)
    original = objects._is_there

    def change_then_look(key: str, size: int, digest: str) -> bool:
        with source.open("r+b") as stream:
            stream.seek(12 * MIB)
            stream.write(b"changed")
        return original(key, size, digest)

    objects._is_there = change_then_look
    with pytest.raises(IntegrityError):
        objects.put_file("volumes/a", source)
    assert not objects.exists("volumes/a")


def test_a_bucket_that_keeps_versions_is_as_good(server: Server) -> None:
    """What is deleted there is gone with all its versions, and its neighbours stay."""
    objects = bucket_of(server)
    from minio.versioningconfig import ENABLED, VersioningConfig

    client = server.client()
    client.set_bucket_versioning(objects._bucket, VersioningConfig(ENABLED))
    objects.put("volumes/a", b"1")
    objects.put("volumes/ab", b"2")
    objects.put("volumes/a", b"1")
    objects.delete("volumes/a")
    objects.delete("volumes/a")
    assert ["volumes/ab"] == list(objects.list())
    with pytest.raises(NotFound):
        objects.get("volumes/a")
    left = client.list_objects(objects._bucket, recursive=True, include_version=True)
    assert ["volumes/ab"] == [version.object_name for version in left]
    objects.put("volumes/a", b"other")
    assert b"other" == objects.get("volumes/a")


def test_wrong_credentials_are_told_as_such(server: Server) -> None:
    """Not as a line that is down; and no secret is repeated."""
    objects = bucket_of(server, secret_key="wrong-secret-key")
    with pytest.raises(DependencyUnavailable, match="refuses this service's credentials") as caught:
        objects.put("volumes/a", b"1")
    assert "OBJECT_STORE_REFUSES" == caught.value.reason
    assert "wrong-secret-key" not in f"{caught.value} {caught.value!r} {objects._options!r}"


@pytest.mark.parametrize(
    "changes", [{"endpoint": "127.0.0.1:9000"}, {"endpoint": "http://h/path"}, {"encryption": "rot13"}]
)
def test_wrong_options_are_refused(server: Server, changes: dict[str, str]) -> None:
    """At once, with what would be right."""
    with pytest.raises(InvalidInput, match=r"use|give"):
        S3Objects(options_of(server, "bucket", **changes))
