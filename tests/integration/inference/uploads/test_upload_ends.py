"""How uploads in pieces end: finalized once, refused, aborted, abandoned."""

import threading
from datetime import timedelta

import sqlalchemy as sa
from refusals import refused
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.errors import DependencyUnavailable, IllegalTransition, IntegrityError, InvalidInput
from rekindle_inference.state.tables import uploads
from rekindle_inference.usecases.sweeping import sweep_uploads
from rekindle_servicekit.database import read, write
from upload_tool import CHUNK, Tool, pieces, purge


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


def expiry(running, upload_id):
    """The moment at which an upload ends, as it is stored."""
    with read(running.service.state.engine) as connection:
        return connection.execute(sa.select(uploads.c.expires_at).where(uploads.c.upload_id == upload_id)).scalar_one()


def bring_forward(running, upload_id, by):
    """Let an upload end earlier, instead of waiting for its end."""
    ends = expiry(running, upload_id) - by
    with write(running.service.state.engine) as connection:
        connection.execute(sa.update(uploads).where(uploads.c.upload_id == upload_id).values(expires_at=ends))


def test_abandoned_uploads_are_swept(start, phantom, tmp_path):
    """An upload that nobody continues is removed at its end; each chunk moves the end of the other one on."""
    lifetime = timedelta(hours=1)
    running = start(changes={"upload_lifetime_s": lifetime.total_seconds()})
    state_of_uploads = running.service.background[0]._uploads
    data = phantom.file(tmp_path).read_bytes()
    left, alive = Tool(running, data), Tool(running, data)
    for tool in (left, alive):
        tool.create()
        tool.put(0)
        bring_forward(running, tool.upload.upload_id, lifetime / 2)
    alive.put(alive.query().received_bytes, size=50)
    for tool in (left, alive):
        bring_forward(running, tool.upload.upload_id, lifetime * 2 / 3)
    assert volumes.UPLOAD_STATE_EXPIRED == left.query().state
    assert "UPLOAD_ENDED" == refused(lambda: left.put(CHUNK)).reason
    assert 1 == sweep_uploads(state_of_uploads)
    assert {alive.upload.upload_id} == {key.split("/")[1] for key in pieces(running)}
    assert 0 == sweep_uploads(state_of_uploads)
    alive.put_all(alive.query().received_bytes)
    alive.finalize()


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
