"""Erasing and archiving, on every database that state is kept in."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from rekindle import vocabulary
from rekindle.vocabulary import Digest, FileFormat, Modality, Organ, SourceReference, VolumeKind
from rekindle_imaging.geometry import Geometry
from rekindle_inference.domain.records import VolumeRecord
from rekindle_inference.state import State as InferenceState
from rekindle_inference.usecases.purges import purge_volumes
from rekindle_scheduler.actions.services import Services
from rekindle_scheduler.domain.enums import CaseState
from rekindle_scheduler.domain.events import Event, EventKind
from rekindle_scheduler.domain.ids import ProjectId, VolumeId
from rekindle_scheduler.domain.policy import Policy
from rekindle_scheduler.domain.purges import PurgeState
from rekindle_scheduler.domain.records import Project
from rekindle_scheduler.domain.volumes import Volume
from rekindle_scheduler.purger import advance_purges
from rekindle_scheduler.state import State, open_state
from rekindle_scheduler.state.archive import project_archive
from rekindle_scheduler.usecases.purges import PurgeTarget, purge_group
from rekindle_servicekit.database import make_engine, read, write
from rekindle_servicekit.idempotency import RequestKey, define_requests, redact, remember, store
from rekindle_servicekit.objects import MemoryObjects
from rekindle_servicekit.principal import Principal
from rekindle_servicekit.workers import Cancellation
from servers.fixtures import MakeDatabase

ALICE = Principal(issuer="test", subject="alice", display_name="Alice")
NOON = datetime(2026, 3, 2, 12, tzinfo=UTC)
PROJECT = ProjectId("6f1c0f2e-3a39-4bd2-9f3e-3b8f1f0d6a01")
GRID = Geometry(size=(2, 3, 4), spacing_mm=(1, 1, 1), origin_mm=(0, 0, 0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def test_texts_are_struck_out_of_answers(make_database: MakeDatabase) -> None:
    """Every answer that has one, and no other, keeps its length."""
    metadata = sa.MetaData()
    define_requests(metadata)

    def prepared(url: str) -> None:
        engine = make_engine(url)
        metadata.create_all(engine)
        engine.dispose()

    url = make_database(prepared)
    prepared(url)
    engine = make_engine(url)
    answers = {"a": b"\x00x " + sha("a").encode() + b" y\xff", "b": b"other"}
    with write(engine) as connection:
        for name, answer in answers.items():
            store(connection, ALICE, "M", name, "d", answer, now=NOON)
        redact(connection, {sha("a"), ""})
    with read(engine) as connection:
        assert remember(connection, ALICE, "M", "a", "d") == b"\x00x " + b"0" * 64 + b" y\xff"
        assert remember(connection, ALICE, "M", "b", "d") == b"other"
    engine.dispose()


@pytest.fixture
def state(make_database: MakeDatabase) -> Iterator[InferenceState]:
    state = InferenceState(make_database(lambda url: InferenceState(url).close()), clock=lambda _: NOON)
    yield state
    state.close()


def record(volume_id: str, digest: str, **changes: Any) -> VolumeRecord:
    values: dict[str, Any] = {
        "volume_id": volume_id,
        "project_id": "p",
        "kind": VolumeKind.IMAGE,
        "geometry": GRID,
        "original_digest": sha(f"original {digest}"),
        "canonical_digest": sha(digest),
        "original_format": FileFormat.NIFTI,
        "source": SourceReference(study_instance_uid="1.2.3"),
        "created_at": NOON,
        "modality": Modality.CT,
    }
    return VolumeRecord(**{**values, **changes})


def test_volumes_are_erased_but_for_bytes_of_others(state: InferenceState) -> None:
    """Image, masks and sources go; what another volume has stays, and a tombstone says what happened."""
    objects = MemoryObjects()
    mask = {"kind": VolumeKind.MASK, "original_digest": "", "source": SourceReference(), "modality": None}
    volumes = [
        record("image", "a"),
        record("twin", "a"),
        record("mask", "m", image_volume_id="image", **mask),
        record("sibling", "s", original_digest=sha("original a")),
    ]
    with state.write() as uow:
        for volume in volumes:
            uow.volumes.add(volume)
            objects.put(f"canonical/{volume.canonical_digest}", volume.canonical_digest.encode())
    objects.put(f"volumes/{sha('original a')}", b"file")
    request = RequestKey(principal=ALICE, method="PurgeVolumes", request_id="r", digest="d")

    purged = purge_volumes(
        state,
        objects,
        request,
        project_id="p",
        volume_ids=["image"],
        snapshot_digests=[],
        forget_digests=[],
    )

    assert purged.volumes == 3  # the image, its mask, and the other series of its file
    assert set(purged.erased_digests) == {sha("m"), sha("s")}
    assert list(objects.list()) == sorted([f"canonical/{sha('a')}", f"volumes/{sha('original a')}"])
    with state.read() as uow:
        assert [uow.volumes.get("p", name) is None for name in ("image", "twin", "mask")] == [True, False, True]  # type: ignore[arg-type]
        assert uow.volumes.is_purged("p", "mask")  # type: ignore[arg-type]
        assert not uow.volumes.is_purged("p", "twin")  # type: ignore[arg-type]


@pytest.fixture
def scheduler(make_database: MakeDatabase) -> Iterator[State]:
    store = open_state(make_database(lambda url: open_state(url).close()))
    yield store
    store.close()


def fill(store: State) -> None:
    """A project with a patient of two cases and another one."""
    with store.write() as uow:
        uow.projects.add(
            Project(
                project_id=PROJECT,
                display_name="Tést",
                organs=(Organ(id="liver", label_value=1),),
                target_modality=vocabulary.Modality.CT,
                policy=Policy(),
                create_time=NOON,
            )
        )
        for name, group in (("a", "patient"), ("b", "patient"), ("c", "")):
            image = Volume(
                volume_id=VolumeId(f"volume {name}"),
                is_image=True,
                modality=vocabulary.Modality.CT,
                digest=Digest(sha(name)),
            )
            uow.cases.add(PROJECT, image, group, held_out=False)
        uow.annotators.find_or_add(ALICE)
        uow.events.add(Event(project_id=PROJECT, kind=EventKind.PROJECT_CREATED, message="it was made"))


@dataclass
class OtherServices:
    """Inference and the trainer, which do as they are told."""

    def purge(self, project_id: str, *_: Any, **given: Any) -> Any:
        from rekindle_scheduler.ports import PurgedVolumes

        return () if _ else PurgedVolumes(volumes=2, objects=4, erased_digests=(Digest(sha("a")),), marked=())


def test_a_patient_is_erased_from_the_scheduler(scheduler: State) -> None:
    """The tombstones are listed as such, counted nowhere, and cannot be worked on; the purge ends once."""
    fill(scheduler)
    with scheduler.write() as uow:
        purge = purge_group(uow, PROJECT, PurgeTarget(group_key="patient"), reason="asked for")
    services = Services(state=scheduler, inference=OtherServices(), trainer=OtherServices())  # type: ignore[arg-type]

    assert advance_purges(services)

    with scheduler.read() as uow:
        done = uow.purges.get(PROJECT, purge.purge_id)
        assert (done.state, done.volumes, done.work) == (PurgeState.DONE, 2, None)
        assert uow.purges.erasing() == []
        assert [case.volume_id for case in uow.cases.all(PROJECT)] == ["volume c"]
        assert uow.tallies.counts(PROJECT).registered == 1
        assert uow.tallies.counts(PROJECT).labelled == 0
        states = {uow.cases.get(PROJECT, case_id).state for case_id in done.case_ids}
        assert states == {CaseState.PURGED}
        assert [each.purge_id for _, each in uow.purges.page(PROJECT, before=None, limit=5)] == [purge.purge_id]


def test_an_archive_is_the_same_on_every_database(scheduler: State, tmp_path: Path) -> None:
    """What SQLite gave is taken in here, and given again byte for byte."""
    source = open_state(f"sqlite:///{tmp_path / 'source.sqlite3'}")
    fill(source)
    data = b"".join(project_archive(source.engine).export(PROJECT, Cancellation()))
    source.close()
    path = tmp_path / "archive.tar"
    path.write_bytes(data)
    here = project_archive(scheduler.engine)

    rows, objects = here.import_(ALICE, PROJECT, "r", hashlib.sha256(data).hexdigest(), path, Cancellation())

    assert (rows, objects) == (5, 0)  # the project, three cases, an event
    assert b"".join(here.export(PROJECT, Cancellation())) == data
    with scheduler.read() as uow:
        assert uow.projects.get(PROJECT).display_name == "Tést"
