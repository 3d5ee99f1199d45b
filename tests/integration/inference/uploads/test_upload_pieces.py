"""Uploads in pieces over gRPC: begun, broken off, gone on with."""

import hashlib
import threading
import zlib

import pytest
from refusals import refused
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.errors import AlreadyExists, CapacityExceeded, IllegalTransition, InvalidInput, NotFound
from upload_tool import CHUNK, Tool, pieces


def test_a_file_in_pieces_becomes_the_same_volume(running, phantom, tool, tmp_path):
    """As if it had come in one stream; nothing of the pieces is left."""
    upload = tool.create()
    assert (volumes.UPLOAD_STATE_OPEN, 0, len(tool.data)) == (upload.state, upload.received_bytes, upload.size_bytes)
    assert ("", 2 * 1024 * 1024) == (upload.upload_url, upload.max_chunk_bytes)
    assert 0 < upload.expire_time.seconds
    tool.put_all()
    assert len(tool.data) == tool.query().received_bytes
    volume = tool.finalize().volume
    streamed = running.upload(phantom.file(tmp_path)).volume
    assert (streamed.canonical_digest, streamed.geometry) == (volume.canonical_digest, volume.geometry)
    assert tool.header.sha256 == volume.original_digest
    assert volumes.UPLOAD_STATE_FINALIZED == tool.query().state
    assert ([], []) == (pieces(running), running.service.incoming.files())


def test_a_mask_in_pieces_has_a_receipt(running, phantom, tool, tmp_path):
    """Measured against its coarse label, as a streamed one."""
    image = running.upload(phantom.file(tmp_path)).volume
    mask = phantom.file(tmp_path, "mask").read_bytes()
    drawn = Tool(
        running, mask, kind=common.VOLUME_KIND_MASK, modality=0, image_volume_id=image.volume_id,
        organs=[common.Organ(id="liver", label_value=6), common.Organ(id="spleen", label_value=1)],
    )  # fmt: skip
    drawn.create()
    drawn.put_all()
    answer = drawn.finalize()
    assert {"liver": 960, "spleen": 280} == {organ.organ_id: organ.voxels for organ in answer.receipt.organs}
    assert answer == drawn.finalize()


def test_an_upload_goes_on_after_a_restart(start, phantom, tmp_path):
    """Another process, or another replica, knows what has arrived, and takes the rest in other pieces."""
    first, second = start(), start()
    tool = Tool(first, phantom.file(tmp_path).read_bytes())
    tool.create()
    tool.put(0)
    tool.running = second
    received = tool.query().received_bytes
    assert CHUNK == received
    tool.put_all(received, size=177)
    volume = tool.finalize().volume
    assert (
        volume
        == first.volumes.GetVolume(
            volumes.GetVolumeRequest(project_id="project-a", volume_id=volume.volume_id), timeout=10
        ).volume
    )


def test_creating_again_is_the_same_upload(begun):
    """A client that lost the answer, or everything, finds its upload by the request id."""
    first = begun.create(request_id="r1")
    begun.put(0)
    again = begun.create(request_id="r1")
    assert (first.upload_id, CHUNK) == (again.upload_id, again.received_bytes)
    error = refused(lambda: begun.create(request_id="r1", size_bytes=7))
    assert (AlreadyExists, "REQUEST_ID_REUSED") == (type(error), error.reason)


def test_the_same_chunk_again_changes_nothing(begun):
    """Its answer was lost: sent again it is answered with where to go on."""
    assert CHUNK == begun.put(0)
    assert 2 * CHUNK == begun.put(CHUNK)
    assert 2 * CHUNK == begun.put(0)
    begun.put_all(2 * CHUNK)
    begun.finalize()


@pytest.mark.parametrize(
    ("offset", "fields", "reason"),
    [
        (2 * CHUNK, {}, "WRONG_OFFSET"),
        (7, {}, "WRONG_OFFSET"),
        (0, {"data": b"other bytes"}, "CHUNK_DIFFERS"),
    ],
)
def test_a_chunk_out_of_step_is_told_where_to_go_on(begun, offset, fields, reason):
    """The error carries the offset that is expected; nothing has changed."""
    before = pieces(begun.running)
    error = refused(lambda: begun.put(offset, **fields))
    assert (IllegalTransition, reason, str(CHUNK)) == (type(error), error.reason, error.metadata["expected_offset"])
    assert (CHUNK, before) == (begun.query().received_bytes, pieces(begun.running))


@pytest.mark.parametrize(
    ("offset", "fields", "reason"),
    [
        (-1, {}, "offset"),
        (CHUNK, {"data": b""}, "data"),
        (CHUNK, {"data": b"x" * (2 * 1024 * 1024 + 1)}, "CHUNK_TOO_LARGE"),
        (CHUNK, {"data": b"x" * 1_000_000}, "BEYOND_SIZE"),
        (CHUNK, {"data": b"abc", "crc32": 1}, "CHUNK_DAMAGED"),
    ],
)
def test_a_wrong_chunk_is_refused(begun, offset, fields, reason):
    """The error names the field or the reason; the upload goes on."""
    error = refused(lambda: begun.put(offset, **fields))
    assert isinstance(error, InvalidInput)
    assert reason in (error.reason, *(violation.field for violation in error.violations))
    begun.put_all(CHUNK)
    begun.finalize()


def test_a_chunk_with_its_checksum_is_taken(begun):
    """CRC-32 as zlib computes it."""
    data = begun.data[CHUNK : 2 * CHUNK]
    assert 2 * CHUNK == begun.put(CHUNK, crc32=zlib.crc32(data))


def test_a_chunk_stored_but_not_noted_is_in_nobodys_way(begun):
    """The service was killed between object and database: the client goes on with a chunk of another size."""
    stranded = f"uploads/{begun.upload.upload_id}/{CHUNK:012d}-{hashlib.sha256(b'lost').hexdigest()[:16]}"
    begun.running.service.objects.put(stranded, b"lost")
    begun.put_all(CHUNK, size=123)
    begun.finalize()
    assert [] == pieces(begun.running)


def test_of_two_that_send_the_same_chunk_both_are_answered(begun):
    """One appends, the other one repeats; the file is whole."""
    found, ready = [], threading.Barrier(4)

    def send():
        ready.wait()
        found.append(begun.put(CHUNK))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [2 * CHUNK] * 4 == found
    begun.put_all(2 * CHUNK)
    begun.finalize()


@pytest.mark.parametrize(
    ("header", "fields", "error"),
    [
        ({}, {"size_bytes": 0}, InvalidInput),
        ({}, {"size_bytes": -5}, InvalidInput),
        ({}, {"size_bytes": 2_000_001}, InvalidInput),
        ({}, {"request_id": ""}, InvalidInput),
        ({"sha256": "../../etc/passwd"}, {}, InvalidInput),
        ({"modality": 0}, {}, InvalidInput),
        ({"project_id": "../other"}, {}, InvalidInput),
        ({"kind": 2, "modality": 0, "image_volume_id": "none", "organs": [common.Organ(id="a", label_value=1)]}, {},
         NotFound),
    ],
)  # fmt: skip
def test_a_wrong_upload_is_refused_before_it_begins(running, tool, header, fields, error):
    """As a stream with that header is, and nothing is kept."""
    before = running.rows()
    tool.header.MergeFrom(volumes.UploadVolumeHeader(**{k: v for k, v in header.items() if v != 0}))
    if header.get("modality") == 0:
        tool.header.ClearField("modality")
    assert error is type(refused(lambda: tool.create(**fields)))
    assert before == running.rows()


def test_an_upload_of_another_project_does_not_exist(begun):
    """Nor does one that never was."""
    for names in ({"project_id": "project-b"}, {"upload_id": "no-upload"}):
        for call in (lambda names=names: begun.put(CHUNK, **names), lambda names=names: begun.finalize(**names),
                     lambda names=names: begun.abort(**names)):  # fmt: skip
            error = refused(call)
            assert (NotFound, "UPLOAD_NOT_FOUND") == (type(error), error.reason)


def test_open_uploads_of_a_project_are_limited(start, phantom, tmp_path):
    """The next one is refused until one of them has ended; other projects are not concerned."""
    running = start(changes={"max_open_uploads": 2})
    tools = [Tool(running, b"x" * 10, **{"project_id": p}) for p in ("project-a", "project-a", "project-b")]
    for tool in tools:
        tool.create()
    error = refused(Tool(running, b"x" * 10).create)
    assert (CapacityExceeded, "TOO_MANY_UPLOADS") == (type(error), error.reason)
    assert error.retry_after_s
    tools[0].abort()
    Tool(running, b"x" * 10).create()


def test_what_open_uploads_announce_is_limited(start):
    """Of all projects together, as anybody may begin uploads of one that does not exist; the rest is taken."""
    running = start(changes={"max_open_upload_bytes": 25})
    tools = [Tool(running, b"x" * 10, project_id=project) for project in ("project-a", "project-b")]
    for tool in tools:
        tool.create()
    error = refused(Tool(running, b"x" * 6, project_id="project-c").create)
    assert (CapacityExceeded, "UPLOADS_FULL", 60.0) == (type(error), error.reason, error.retry_after_s)
    Tool(running, b"x" * 5).create()
    tools[0].abort()
    Tool(running, b"x" * 10).create()
