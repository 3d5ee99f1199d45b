"""Uploads in pieces on every database that state is kept in, with a clock that stands still."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rekindle.errors import DependencyUnavailable, NotFound
from rekindle.vocabulary import FileFormat, Modality, Organ, SourceReference, VolumeKind
from rekindle_inference.domain.records import ProjectId
from rekindle_inference.domain.uploads import Part, RequestIdentity, UploadId, UploadRecord, UploadState
from rekindle_inference.state import State
from rekindle_inference.usecases.sweeping import KEPT, sweep_uploads
from rekindle_inference.usecases.uploads import (
    Chunk,
    Uploads,
    create_upload,
    header_of,
    put_chunk,
    query_upload,
)
from rekindle_inference.usecases.volumes import Upload, Volumes
from rekindle_servicekit.idempotency import RequestKey
from rekindle_servicekit.objects import MemoryObjects
from rekindle_servicekit.principal import Principal
from servers.fixtures import MakeDatabase

START = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
PROJECT = ProjectId("p")
HEADER = Upload(
    project_id="p",
    kind=VolumeKind.IMAGE,
    format=FileFormat.NIFTI,
    sha256="ab" * 32,
    source=SourceReference(study_instance_uid="1.2", sop_instance_uids=("1.2.3", "1.2.4")),
    modality=Modality.MR,
    image_volume_id="",
    coarse_mask_volume_id="",
    organs=(),
)
UPLOAD = UploadRecord(
    upload_id=UploadId("u"),
    project_id=PROJECT,
    state=UploadState.OPEN,
    act=RequestIdentity(issuer="i", subject="s", method="UploadVolume", request_id="r", digest="d"),
    header={"sha256": "ab" * 32},
    size_bytes=2**40,
    received_bytes=0,
    chunks=0,
    presigned=True,
    created_at=START,
    expires_at=START + timedelta(days=1),
)


class Clock:
    """Stands still until it is set."""

    now = START

    def __call__(self, _connection: object) -> datetime:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(make_database: MakeDatabase, clock: Clock) -> Iterator[State]:
    url = make_database(lambda url: State(url).close())
    state = State(url, clock=clock)
    yield state
    state.close()


@pytest.fixture
def objects() -> MemoryObjects:
    return MemoryObjects()


@pytest.fixture
def uploads(state: State, objects: MemoryObjects) -> Uploads:
    """The use cases; nothing is parsed here."""
    nobody: Any = None
    volumes = Volumes(state=state, objects=objects, reader=nobody, writer=nobody, segmentations=nobody, max_voxels=1)
    return Uploads(
        state=state,
        objects=objects,
        volumes=volumes,
        max_file_bytes=100,
        max_open=300,
        max_open_bytes=10_000,
        lifetime=timedelta(hours=1),
    )


def request(request_id: str, method: str = "CreateUpload") -> RequestKey:
    principal = Principal(issuer="test", subject="alice", display_name="Alice")
    return RequestKey(principal=principal, method=method, request_id=request_id, digest="d")


def begin(uploads: Uploads, request_id: str) -> UploadId:
    started = create_upload(uploads, request(request_id), HEADER, request("", "UploadVolume"), 10, presigned=False)
    return started.upload.upload_id


def put(uploads: Uploads, upload_id: UploadId, offset: int, data: bytes) -> int:
    return put_chunk(uploads, Chunk(project_id=PROJECT, upload_id=upload_id, offset=offset, data=data, crc32=None))


def test_an_upload_comes_back_the_same(state: State, clock: Clock) -> None:
    """With sizes beyond 32 bits; of its own project only."""
    with state.write() as uow:
        uow.uploads.add(UPLOAD)
    with state.read() as uow:
        assert UPLOAD == uow.uploads.get(PROJECT, UPLOAD.upload_id)
        assert uow.uploads.get(ProjectId("q"), UPLOAD.upload_id) is None
        counts = (uow.uploads.count_open(PROJECT), uow.uploads.count_open(ProjectId("q")), uow.uploads.open_bytes())
        assert (1, 0, 2**40) == counts
    clock.now = UPLOAD.expires_at
    with state.read() as uow:
        assert (0, 0) == (uow.uploads.count_open(PROJECT), uow.uploads.open_bytes())


def test_parts_follow_one_another(state: State) -> None:
    """Each moves the upload on and its end, never back; one that does not follow is not taken."""
    late, later = UPLOAD.expires_at + timedelta(hours=1), UPLOAD.expires_at - timedelta(hours=1)
    first, second = Part(offset=0, size_bytes=7, sha256="a"), Part(offset=7, size_bytes=2**20, sha256="b")
    with state.write() as uow:
        uow.uploads.add(UPLOAD)
        assert uow.uploads.add_part(UPLOAD, first, late)
        assert not uow.uploads.add_part(UPLOAD, first, late)
        moved = uow.uploads.get(PROJECT, UPLOAD.upload_id)
        assert moved == replace(UPLOAD, received_bytes=7, chunks=1, expires_at=late)
        assert uow.uploads.add_part(moved, second, later)
    with state.read() as uow:
        assert [first, second] == uow.uploads.parts(UPLOAD.upload_id)
        assert second == uow.uploads.part(UPLOAD.upload_id, 7)
        assert uow.uploads.part(UPLOAD.upload_id, 8) is None
        expected = replace(UPLOAD, received_bytes=7 + 2**20, chunks=2, expires_at=late)
        assert expected == uow.uploads.get(PROJECT, UPLOAD.upload_id)


def test_an_upload_ends_once(state: State) -> None:
    """What ended first stays; header and parts are forgotten, and nothing more is taken."""
    part = Part(offset=0, size_bytes=7, sha256="a")
    with state.write() as uow:
        uow.uploads.add(UPLOAD)
        uow.uploads.add_part(UPLOAD, part, START)
        assert uow.uploads.end(UPLOAD.upload_id, UploadState.ABORTED, refusal=("WHY", "because"))
        assert not uow.uploads.end(UPLOAD.upload_id, UploadState.EXPIRED)
        assert not uow.uploads.add_part(UPLOAD, part, START)
    with state.read() as uow:
        ended = uow.uploads.get(PROJECT, UPLOAD.upload_id)
        assert ended is not None
        assert (UploadState.ABORTED, ("WHY", "because"), {}) == (ended.state, ended.refusal, dict(ended.header))
        assert [] == uow.uploads.parts(UPLOAD.upload_id)


def test_what_was_announced_is_remembered(uploads: Uploads, state: State) -> None:
    """The header that a file is finalized with is the one that it was begun with."""
    organ = Organ(id="liver", label_value=6)
    upload_id = begin(uploads, "r1")
    with state.read() as uow:
        upload = uow.uploads.get(PROJECT, upload_id)
    assert upload is not None
    assert HEADER == header_of(upload)
    with_organs = replace(upload, header={**upload.header, "organs": [{"id": "liver", "label_value": 6, "code": None}]})
    assert (organ,) == header_of(with_organs).organs


def test_of_many_that_send_one_chunk_all_go_on(uploads: Uploads) -> None:
    """Each is told the same offset, or to try again; the chunk is there once."""
    upload_id = begin(uploads, "r1")
    told: list[object] = []
    ready = threading.Barrier(6)

    def send() -> None:
        ready.wait()
        try:
            told.append(put(uploads, upload_id, 0, b"abc"))
        except DependencyUnavailable:
            told.append(put(uploads, upload_id, 0, b"abc"))

    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [3] * 6 == told
    assert 3 == query_upload(uploads, PROJECT, upload_id).received_bytes


def test_the_sweep_takes_what_nobody_went_on_with(
    uploads: Uploads, state: State, objects: MemoryObjects, clock: Clock
) -> None:
    """More than it looks at in one step; chunks put it off; a week later nothing is known of them."""
    left = [begin(uploads, f"r{number}") for number in range(120)]
    alive = begin(uploads, "alive")
    for upload_id in (*left, alive):
        put(uploads, upload_id, 0, b"abc")
    clock.now = START + timedelta(minutes=59)
    put(uploads, alive, 3, b"def")
    assert 0 == sweep_uploads(uploads)
    clock.now = START + timedelta(hours=1)
    assert 120 == sweep_uploads(uploads)
    assert {alive} == {key.split("/")[1] for key in objects.list("uploads/")}
    assert UploadState.EXPIRED is query_upload(uploads, PROJECT, left[0]).state
    assert UploadState.OPEN is query_upload(uploads, PROJECT, alive).state
    clock.now = START + timedelta(hours=1) + KEPT + timedelta(seconds=1)
    sweep_uploads(uploads)
    with pytest.raises(NotFound):
        query_upload(uploads, PROJECT, left[0])
    assert UploadState.EXPIRED is query_upload(uploads, PROJECT, alive).state
    assert [] == list(objects.list("uploads/"))


def test_what_came_after_the_sweep_goes_before_its_upload_is_forgotten(
    uploads: Uploads, objects: MemoryObjects, clock: Clock
) -> None:
    """A transfer to an address that began in time may end after it."""
    upload_id = begin(uploads, "r1")
    clock.now = START + timedelta(hours=1)
    assert 1 == sweep_uploads(uploads)
    objects.put(f"uploads/{upload_id}/whole", b"late")
    clock.now += KEPT + timedelta(seconds=1)
    assert 0 == sweep_uploads(uploads)
    assert [] == list(objects.list("uploads/"))
    with pytest.raises(NotFound):
        query_upload(uploads, PROJECT, upload_id)


def test_one_that_somebody_goes_on_with_at_this_moment_is_not_swept(
    uploads: Uploads, state: State, objects: MemoryObjects, clock: Clock
) -> None:
    """It has been looked at as expired, and is finalized by another replica."""
    upload_id = begin(uploads, "r1")
    put(uploads, upload_id, 0, b"abc")
    clock.now = START + timedelta(hours=1)
    swept: list[int] = []
    sweep = threading.Thread(target=lambda: swept.append(sweep_uploads(uploads)))
    with state.write() as uow:
        uow.uploads.renew(upload_id, clock.now + timedelta(hours=1))
        sweep.start()
        sweep.join(0.3)
    sweep.join(30)
    assert [0] == swept
    assert UploadState.OPEN is query_upload(uploads, PROJECT, upload_id).state
    assert 1 == len(list(objects.list("uploads/")))


def test_one_that_cannot_be_removed_stops_no_others(
    uploads: Uploads, state: State, objects: MemoryObjects, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first of several steps: the others are swept and forgotten, it is told of, and it goes once it can."""
    stuck = begin(uploads, "stuck")
    put(uploads, stuck, 0, b"abc")
    clock.now = START + timedelta(minutes=1)
    others = [begin(uploads, f"r{number}") for number in range(120)]
    for upload_id in others:
        put(uploads, upload_id, 0, b"abc")
    delete = objects.delete

    def locked(key: str) -> None:
        if stuck in key:
            raise PermissionError("locked")
        delete(key)

    with monkeypatch.context() as patch:
        patch.setattr(objects, "delete", locked)
        clock.now = START + timedelta(hours=2)
        with pytest.raises(PermissionError):
            sweep_uploads(uploads)
        assert {stuck} == {key.split("/")[1] for key in objects.list("uploads/")}
        clock.now += KEPT
        with pytest.raises(PermissionError):
            sweep_uploads(uploads)
        with state.read() as uow:
            assert [] == [upload_id for upload_id in others if uow.uploads.get(PROJECT, upload_id)]
    assert 1 == sweep_uploads(uploads)
    assert [] == list(objects.list("uploads/"))


def test_the_sweep_goes_on_when_the_store_is_back(
    uploads: Uploads, objects: MemoryObjects, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be removed is removed the next time."""
    put(uploads, begin(uploads, "r1"), 0, b"abc")
    clock.now = START + timedelta(hours=2)

    def away(key: str) -> None:
        raise DependencyUnavailable("the object store is away")

    with monkeypatch.context() as patch:
        patch.setattr(objects, "delete", away)
        with pytest.raises(DependencyUnavailable):
            sweep_uploads(uploads)
    assert 1 == sweep_uploads(uploads)
    assert [] == list(objects.list("uploads/"))
