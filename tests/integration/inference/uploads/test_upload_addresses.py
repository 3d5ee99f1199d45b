"""Files that are sent to an address of the object store."""

import threading
import urllib.error
import urllib.request

import grpc
import pytest
from http_objects import HttpObjects
from refusals import refused
from rekindle.api.common.v1.info_pb2 import GetServerInfoRequest
from rekindle.api.common.v1.info_pb2_grpc import InfoServiceStub
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.errors import IntegrityError
from rekindle_inference.usecases.sweeping import sweep_uploads
from servers.s3 import bucket_of
from upload_tool import Tool, pieces, purge


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
