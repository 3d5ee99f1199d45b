"""Uploads in pieces over gRPC: broken off, gone on with, finalized once, refused, abandoned."""

import hashlib
import threading
import urllib.error
import urllib.request
import uuid
import zlib

import grpc
import numpy as np
import pytest
from dicom_phantom import archive, series, to_bytes
from http_objects import HttpObjects
from rekindle._status import error_from_rpc
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.common.v1.info_pb2 import GetServerInfoRequest
from rekindle.api.common.v1.info_pb2_grpc import InfoServiceStub
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.errors import (
    AlreadyExists,
    CapacityExceeded,
    DependencyUnavailable,
    IllegalTransition,
    IntegrityError,
    InvalidInput,
    NotFound,
)
from rekindle_inference.usecases.sweeping import sweep_uploads
from servers.s3 import bucket_of

CHUNK = 3000


def refused(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return error_from_rpc(caught.value)


class Tool:
    """A client that sends a file in pieces."""

    def __init__(self, running, data, **header):
        self.running, self.data = running, data
        self.header = volumes.UploadVolumeHeader(
            **{
                "project_id": "project-a",
                "kind": common.VOLUME_KIND_IMAGE,
                "format": common.FILE_FORMAT_NIFTI,
                "sha256": hashlib.sha256(data).hexdigest(),
                "modality": common.MODALITY_CT,
                **header,
            }
        )

    def create(self, **fields):
        request = volumes.CreateUploadRequest(
            **{
                "request_id": uuid.uuid4().hex,
                "header": self.header,
                "size_bytes": len(self.data),
                **fields,
            }
        )
        self.upload = self.running.volumes.CreateUpload(request, timeout=10).upload
        return self.upload

    def put(self, offset, size=CHUNK, **fields):
        request = volumes.PutChunkRequest(
            **{**self.names, "offset": offset, "data": self.data[offset : offset + size], **fields}
        )
        return self.running.volumes.PutChunk(request, timeout=10).received_bytes

    def put_all(self, offset=0, size=CHUNK):
        while offset < len(self.data):
            offset = self.put(offset, size)

    def query(self):
        return self.running.volumes.QueryUpload(volumes.QueryUploadRequest(**self.names), timeout=10).upload

    def finalize(self, **fields):
        request = volumes.FinalizeUploadRequest(**{"request_id": uuid.uuid4().hex, **self.names, **fields})
        return self.running.volumes.FinalizeUpload(request, timeout=60)

    def abort(self, **fields):
        request = volumes.AbortUploadRequest(**{"request_id": uuid.uuid4().hex, **self.names, **fields})
        return self.running.volumes.AbortUpload(request, timeout=10).upload

    @property
    def names(self):
        return {"project_id": "project-a", "upload_id": self.upload.upload_id}


def pieces(running):
    """Objects of uploads that are still there."""
    return sorted(running.service.objects.list("uploads/"))


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


def test_finalizing_again_answers_the_same_volume(begun):
    """With the same request id, with another one, and twice at the same moment."""
    begun.put_all(CHUNK)
    found, ready = [], threading.Barrier(3)

    def finalize(request_id):
        ready.wait()
        found.append(begun.finalize(request_id=request_id))

    threads = [threading.Thread(target=finalize, args=[name]) for name in ("r1", "r2", "r3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found += [begun.finalize(request_id="r1"), begun.finalize(request_id="r4")]
    assert 1 == len({answer.volume.volume_id for answer in found})
    assert 5 == len(found)


def test_a_request_id_of_another_upload_is_refused(begun, running, phantom, tmp_path):
    """A request id names one request."""
    begun.put_all(CHUNK)
    begun.finalize(request_id="r1")
    other = Tool(running, phantom.file(tmp_path, voxels=phantom.image + 1).read_bytes())
    other.create()
    other.put_all()
    assert "REQUEST_ID_REUSED" == refused(lambda: other.finalize(request_id="r1")).reason
    assert "INVALID_INPUT" == refused(lambda: other.finalize(request_id="")).reason
    other.finalize(request_id="r2")


def test_an_incomplete_upload_is_not_finalized(begun):
    """The error says where to go on; the rest may still come."""
    error = refused(begun.finalize)
    assert (IllegalTransition, "INCOMPLETE", str(CHUNK)) == (
        type(error), error.reason, error.metadata["expected_offset"],
    )  # fmt: skip
    begun.put_all(CHUNK)
    begun.finalize()


def test_other_bytes_than_announced_begin_again(begun):
    """DATA_LOSS; what arrived is dropped, and the right bytes can be sent under the same upload."""
    damaged = b"!" + begun.data[CHUNK + 1 : 2 * CHUNK]
    begun.put(CHUNK, data=damaged)
    begun.put_all(2 * CHUNK)
    error = refused(begun.finalize)
    assert (IntegrityError, "DIGEST_MISMATCH") == (type(error), error.reason)
    assert ([], 0, volumes.UPLOAD_STATE_OPEN) == (
        pieces(begun.running), begun.query().received_bytes, begun.query().state,
    )  # fmt: skip
    begun.put_all()
    begun.finalize()


def test_a_part_that_is_lost_begins_again(begun, running):
    """The store has forgotten what the database knows of; the same upload then takes the file anew."""
    begun.put_all(begun.query().received_bytes)
    running.service.objects.delete(pieces(running)[0])
    error = refused(begun.finalize)
    assert (IntegrityError, "OBJECT_MISSING") == (type(error), error.reason)
    assert (0, []) == (begun.query().received_bytes, pieces(running))
    begun.put_all()
    begun.finalize()


def test_a_refused_file_ends_its_upload(running):
    """No volume, no pieces, no header; asked again it is refused for the same reason."""
    tool = Tool(running, b"Dear radiologist, " * 1000)
    tool.create()
    tool.put_all()
    first, again = refused(tool.finalize), refused(tool.finalize)
    assert (InvalidInput, "NOT_A_VOLUME") == (type(first), first.reason)
    assert (first.reason, first.message) == (again.reason, again.message)
    assert volumes.UPLOAD_STATE_ABORTED == tool.query().state
    assert ([], []) == (pieces(running), running.service.incoming.files())
    assert "NOT_A_VOLUME" == refused(lambda: tool.put(0)).reason


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


def test_an_ended_upload_takes_nothing(begun):
    """Aborted: no chunk, no finalizing; aborting again is harmless; its pieces are gone at once."""
    assert volumes.UPLOAD_STATE_ABORTED == begun.abort().state
    assert [] == pieces(begun.running)
    for call in (lambda: begun.put(CHUNK), begun.finalize):
        error = refused(call)
        assert (IllegalTransition, "UPLOAD_ENDED") == (type(error), error.reason)
    assert volumes.UPLOAD_STATE_ABORTED == begun.abort(request_id="again").state


def test_a_volume_is_not_aborted(begun):
    """Once finalized, chunks and aborting are refused and the volume stays."""
    begun.put_all(CHUNK)
    begun.finalize()
    for call in (lambda: begun.put(0), begun.abort):
        assert "UPLOAD_ENDED" == refused(call).reason
    assert volumes.UPLOAD_STATE_FINALIZED == begun.query().state


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


def test_an_upload_and_a_stream_of_one_request_are_one_act(running, phantom, tmp_path):
    """A stream whose answer was lost arrived all the same: the upload in pieces answers its volume."""
    path = phantom.file(tmp_path)
    streamed = running.upload(path, request_id="r1").volume
    tool = Tool(running, path.read_bytes(), request_id="r1")
    upload = tool.create()
    assert (volumes.UPLOAD_STATE_FINALIZED, len(tool.data)) == (upload.state, upload.received_bytes)
    assert streamed == tool.finalize().volume
    later = phantom.file(tmp_path, voxels=phantom.image + 1)
    tool = Tool(running, later.read_bytes(), request_id="r2")
    tool.create()
    tool.put_all()
    assert tool.finalize().volume == running.upload(later, request_id="r2").volume
    assert "REQUEST_ID_REUSED" == refused(lambda: Tool(running, b"x", request_id="r2").create()).reason


def send_study(running, data, request_id):
    """What a stream of the archive answers."""
    header = volumes.UploadStudyHeader(
        request_id=request_id, project_id="project-a", sha256=hashlib.sha256(data).hexdigest()
    )
    parts = [volumes.UploadStudyRequest(header=header), volumes.UploadStudyRequest(chunk=data)]
    return list(running.volumes.UploadStudy(iter(parts), timeout=60).series)


@pytest.fixture
def study(running):
    """An archive of a CT series and a text file, to be sent in pieces; of the header only two fields count."""
    ct = series(np.zeros((5, 8, 6), np.uint16))
    tool = Tool(running, archive([*(to_bytes(dataset) for dataset in ct), b"readme " * 100], shuffle=None))
    tool.header = volumes.UploadVolumeHeader(project_id="project-a", sha256=hashlib.sha256(tool.data).hexdigest())
    return tool


def test_a_study_in_pieces_is_taken_apart(running, study):
    """Its series are answered as a stream answers them, again when it is finalized again."""
    study.create(study=True)
    study.put_all()
    answer = study.finalize()
    ct, text = answer.series
    assert ((6, 8, 5), "NOT_DICOM") == (tuple(ct.volume.geometry.size), text.failure.reason)
    assert not answer.HasField("volume")
    assert answer == study.finalize()
    assert (volumes.UPLOAD_STATE_FINALIZED, []) == (study.query().state, pieces(running))


def test_a_study_and_its_stream_are_one_act(running, study):
    """Whichever arrives first under a request id makes the volumes."""
    study.header.request_id = "r1"
    streamed = send_study(running, study.data, "r1")
    assert volumes.UPLOAD_STATE_FINALIZED == study.create(study=True).state
    assert streamed == list(study.finalize().series)
    study.header.request_id = "r2"
    study.create(study=True)
    study.put_all()
    assert list(study.finalize().series) == send_study(running, study.data, "r2")


def test_a_wrong_study_is_refused(running, study):
    """Before it begins, where its header is wrong; once it has come, where it is no archive: that ends the upload."""
    for field, value in (("project_id", "../x"), ("sha256", "x")):
        header = volumes.UploadVolumeHeader(project_id="project-a", sha256=study.header.sha256)
        setattr(header, field, value)
        error = refused(lambda header=header: study.create(study=True, header=header))
        assert [field] == [violation.field for violation in error.violations]
    tool = Tool(running, archive([b"readme " * 100], names=lambda number: f"../{number}"))
    tool.create(study=True)
    tool.put_all()
    first, again = refused(tool.finalize), refused(tool.finalize)
    assert (InvalidInput, "UNSAFE_ARCHIVE", "UNSAFE_ARCHIVE") == (type(first), first.reason, again.reason)
    assert (volumes.UPLOAD_STATE_ABORTED, []) == (tool.query().state, pieces(running))


def test_abandoned_uploads_are_swept(start, phantom, tmp_path):
    """What nobody went on with is removed; what somebody does is not."""
    running = start(changes={"upload_lifetime_s": 1.0})
    data = phantom.file(tmp_path).read_bytes()
    left, alive = Tool(running, data), Tool(running, data)
    for tool in (left, alive):
        tool.create()
        tool.put(0)
    for _ in range(6):
        threading.Event().wait(0.25)
        alive.put(alive.query().received_bytes, size=50)  # each chunk moves the end on
    assert volumes.UPLOAD_STATE_EXPIRED == left.query().state
    assert "UPLOAD_ENDED" == refused(lambda: left.put(CHUNK)).reason
    sweeper = running.service.background[0]
    assert 1 == sweep_uploads(sweeper._uploads)
    assert {alive.upload.upload_id} == {key.split("/")[1] for key in pieces(running)}
    assert 0 == sweep_uploads(sweeper._uploads)
    alive.put_all(alive.query().received_bytes)
    alive.finalize()


@pytest.fixture(params=["directory with HTTP", "minio"])
def addressed(request, start, tmp_path):
    """A service whose object store can be sent files by HTTP."""
    if request.param == "minio":
        yield start(objects=bucket_of(request.getfixturevalue("minio")))
        return
    objects = HttpObjects(tmp_path / "objects")
    yield start(objects=objects)
    objects.close()


def send(url, data):
    request = urllib.request.Request(url, data=data, method="PUT")
    with urllib.request.urlopen(request, timeout=10) as answer:
        return answer.status


def test_a_file_sent_to_the_store_is_finalized(addressed, phantom, tmp_path):
    """Invisible until it is checked and read; then a volume like any other, and nothing of it is left."""
    tool = Tool(addressed, phantom.file(tmp_path).read_bytes())
    upload = tool.create(presigned=True)
    assert upload.url_expire_time.seconds > 0
    assert "INCOMPLETE" == refused(tool.finalize).reason
    assert 200 == send(upload.upload_url, tool.data)
    before = addressed.rows()
    assert (len(tool.data), "") == (tool.query().received_bytes, tool.query().upload_url)
    assert before == addressed.rows()
    volume = tool.finalize().volume
    assert volume.canonical_digest == addressed.upload(phantom.file(tmp_path)).volume.canonical_digest
    assert [] == pieces(addressed)


def test_a_service_says_whether_its_store_has_addresses(addressed, running):
    """A client need not try in vain."""
    said = []
    for service in (addressed, running):
        with grpc.insecure_channel(service.service.server.address) as channel:
            info = InfoServiceStub(channel).GetServerInfo(GetServerInfoRequest(), timeout=10).info
        assert "resumable-uploads" in info.capabilities
        said.append("presigned-uploads" in info.capabilities)
    assert ([True, False], 2 * 1024 * 1024) == (said, info.limits["max_chunk_bytes"])


def test_wrong_bytes_at_the_store_can_be_sent_again(addressed, phantom, tmp_path):
    """Too few, then damaged, then right: to the same address."""
    tool = Tool(addressed, phantom.file(tmp_path).read_bytes())
    upload = tool.create(presigned=True)
    for data, reason in ((tool.data[:-1], "SIZE_MISMATCH"), (b"!" + tool.data[1:], "DIGEST_MISMATCH")):
        send(upload.upload_url, data)
        error = refused(tool.finalize)
        assert (IntegrityError, reason) == (type(error), error.reason)
        assert [] == pieces(addressed)
    send(upload.upload_url, tool.data)
    tool.finalize()


def test_chunks_may_come_where_the_store_cannot_be_reached(addressed, phantom, tmp_path):
    """An address that the client cannot use is no obstacle."""
    tool = Tool(addressed, phantom.file(tmp_path).read_bytes())
    tool.create(presigned=True)
    tool.put_all()
    tool.finalize()


def test_what_is_sent_after_the_end_is_swept(start, phantom, tmp_path):
    """A good address outlives its upload; what comes there is removed once it has run out."""
    objects = HttpObjects(tmp_path / "objects")
    running = start(objects=objects, changes={"upload_lifetime_s": 1.0})
    tool = Tool(running, phantom.file(tmp_path).read_bytes())
    url = tool.create(presigned=True).upload_url
    send(url, tool.data)
    tool.finalize()
    send(url, tool.data)
    assert 1 == len(pieces(running))
    threading.Event().wait(1.2)
    with pytest.raises(urllib.error.HTTPError):
        send(url, tool.data)
    sweep_uploads(running.service.background[0]._uploads)
    assert [] == pieces(running)
    assert volumes.UPLOAD_STATE_FINALIZED == tool.query().state
    objects.close()


def purge(running, volume_id):
    request = volumes.PurgeVolumesRequest(request_id=uuid.uuid4().hex, project_id="project-a", volume_ids=[volume_id])
    running.volumes.PurgeVolumes(request, timeout=30)


def test_what_comes_by_an_address_is_erased_with_its_volume(start, phantom, tmp_path):
    """What has come after the end goes with the volume, what comes later once the address has run out."""
    objects = HttpObjects(tmp_path / "objects")
    running = start(objects=objects, changes={"upload_lifetime_s": 2.0})
    tool = Tool(running, phantom.file(tmp_path).read_bytes())
    url = tool.create(presigned=True).upload_url
    send(url, tool.data)
    volume = tool.finalize().volume
    send(url, tool.data)
    purge(running, volume.volume_id)
    erased = pieces(running)
    send(url, tool.data)
    assert ([], 1) == (erased, len(pieces(running)))
    threading.Event().wait(2.0)
    sweep_uploads(running.service.background[0]._uploads)
    assert [] == list(running.service.objects.list())
    objects.close()


def test_pieces_that_could_not_be_removed_are_erased_with_their_volume(running, tool, monkeypatch):
    """The store was away for a moment when the upload was finalized."""

    def away(_key):
        raise DependencyUnavailable("the object store is away")

    tool.create()
    tool.put_all()
    with monkeypatch.context() as patch:
        patch.setattr(running.service.objects, "delete", away)
        volume = tool.finalize().volume
    assert [] != pieces(running)
    purge(running, volume.volume_id)
    assert [] == list(running.service.objects.list())
