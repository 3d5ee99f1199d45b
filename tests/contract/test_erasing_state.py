"""Bytes that are removed while somebody takes the same ones in, on every database that state is kept in."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from rekindle.vocabulary import FileFormat, Modality, SourceReference, VolumeKind
from rekindle_imaging.geometry import Geometry
from rekindle_inference.domain.records import ProjectId, VolumeId, VolumeRecord
from rekindle_inference.state import State
from servers.fixtures import MakeDatabase

VOLUME = VolumeRecord(
    volume_id=VolumeId("v"),
    project_id=ProjectId("p"),
    kind=VolumeKind.IMAGE,
    geometry=Geometry(
        size=(2, 2, 2),
        spacing_mm=(1.0, 1.0, 1.0),
        origin_mm=(0.0, 0.0, 0.0),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    ),
    original_digest="a" * 64,
    canonical_digest="b" * 64,
    original_format=FileFormat.NIFTI,
    source=SourceReference(),
    created_at=datetime(2030, 1, 2, tzinfo=UTC),
    modality=Modality.CT,
)


@pytest.fixture
def state(make_database: MakeDatabase) -> Iterator[State]:
    state = State(make_database(lambda url: State(url).close()))
    yield state
    state.close()


def test_bytes_are_free_while_no_volume_has_them(state: State) -> None:
    """As they were sent, and in canonical form; of whichever project."""
    with state.write() as uow:
        assert uow.volumes.is_free(VOLUME.canonical_digest)
        assert uow.volumes.is_free(VOLUME.original_digest, original=True)
        uow.volumes.add(VOLUME)
    with state.write() as uow:
        assert not uow.volumes.is_free(VOLUME.canonical_digest)
        assert not uow.volumes.is_free(VOLUME.original_digest, original=True)
        assert uow.volumes.is_free(VOLUME.original_digest)


def test_nobody_takes_in_bytes_that_were_found_free_before_they_are_removed(state: State) -> None:
    """A volume of the same bytes waits for the transaction that removes them, and then stores them again."""
    added = threading.Event()

    def add() -> None:
        with state.write() as uow:
            uow.volumes.add(replace(VOLUME, original_digest=""))
        added.set()

    with state.write() as uow:
        uow.volumes.hold([VOLUME.original_digest, VOLUME.canonical_digest])
        assert uow.volumes.is_free(VOLUME.canonical_digest)
        thread = threading.Thread(target=add)
        thread.start()
        assert not added.wait(0.3)
    thread.join(30)
    assert added.is_set()
