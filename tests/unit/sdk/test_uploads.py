"""Uploads in pieces."""

from __future__ import annotations

import random
import zlib
from pathlib import Path

import grpc
import pytest
from fake_world import Command, Connect, World
from rekindle._call import UploadWay
from rekindle.projects import Project
from rekindle.volumes import CHUNK_BYTES

BIG = random.Random(7).randbytes(2 * CHUNK_BYTES + 17)


def test_large_file_goes_on_in_pieces_when_its_stream_breaks(project: Project, world: World) -> None:
    """Chunks no larger than the service takes, each with its checksum; progress ends at the file's size."""
    data = random.Random(8).randbytes(5 * CHUNK_BYTES)
    world.failures["UploadVolume"] = [grpc.StatusCode.UNAVAILABLE]
    world.failures["PutChunk"] = [grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED]
    seen: list[tuple[int, int]] = []
    volume_id = project.upload_image(data, progress=lambda done, total: seen.append((done, total)))
    assert data == world.volumes[volume_id][1]
    assert 1 == len(world.requests("UploadVolume"))
    chunks = world.requests("PutChunk")
    assert 500_000 == max(len(chunk.data) for chunk in chunks)
    assert all(zlib.crc32(chunk.data) == chunk.crc32 for chunk in chunks)
    assert (len(data), len(data)) == seen[-1]


def test_a_small_file_is_simply_sent_again(project: Project, world: World) -> None:
    """Pieces would cost more calls than they save."""
    world.failures["UploadVolume"] = [grpc.StatusCode.UNAVAILABLE]
    project.upload_image(BIG)
    assert (2, []) == (len(world.requests("UploadVolume")), world.requests("CreateUpload"))


def test_chunks_fit_the_line(connect: Connect, project: Project, world: World) -> None:
    """They grow up to what the service takes, and shrink to a quarter when one is too slow to arrive."""
    data = random.Random(10).randbytes(4 * CHUNK_BYTES)
    upload = connect("pieces").project(project.id).begin_upload(data)
    upload._upload.max_chunk_bytes = 2 * CHUNK_BYTES
    world.failures["PutChunk"] = [grpc.StatusCode.DEADLINE_EXCEEDED]
    upload.send(data)
    sizes = [len(chunk.data) // 1024 for chunk in world.requests("PutChunk")]
    assert [1024, 256, 512, 1024, 2048, 256] == sizes
    assert data == bytes(world.pieces[upload.id][1])


def test_a_client_that_is_behind_goes_on_where_the_service_is(connect: Connect, project: Project, world: World) -> None:
    """Somebody else has sent a part meanwhile."""
    chosen = connect("pieces").project(project.id)
    upload, other = chosen.begin_upload(BIG), chosen.begin_upload(BIG)
    upload.put(0, BIG[:3])
    other.put(3, BIG[3:7])
    upload.send(BIG)
    assert BIG == bytes(world.pieces[upload.id][1])


@pytest.mark.parametrize("way", ["auto", "pieces", "address"])
def test_an_older_service_gets_a_stream(connect: Connect, project: Project, world: World, way: UploadWay) -> None:
    """One that knows no pieces is sent the file as ever."""
    data = random.Random(9).randbytes(5 * CHUNK_BYTES)
    world.failures["CreateUpload"] = [grpc.StatusCode.UNIMPLEMENTED]
    world.failures["UploadVolume"] = [grpc.StatusCode.UNAVAILABLE]
    assert data == world.volumes[connect(way).project(project.id).upload_image(data)][1]
    assert 1 == len(world.requests("CreateUpload"))


def test_the_command_line_says_how_files_are_sent(
    command: Command, project: Project, world: World, tmp_path: Path
) -> None:
    """`--uploads pieces`, before the command."""
    (tmp_path / "a.nii.gz").write_bytes(b"scan")
    result = command("--uploads", "pieces", "cases", "add", tmp_path)
    assert (0, 1, []) == (result.exit_code, len(world.requests("FinalizeUpload")), world.requests("UploadVolume"))
