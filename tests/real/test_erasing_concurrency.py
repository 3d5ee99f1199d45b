"""Images and masks taken in and erased by many at once, by two services on one PostgreSQL and one object store."""

from __future__ import annotations

import hashlib
import random
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from leasing import together
from rekindle.errors import DependencyUnavailable, NotFound
from rekindle.vocabulary import FileFormat, Modality, Organ, SourceReference, VolumeKind
from rekindle_imaging import canonical
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume
from rekindle_inference.domain.records import VolumeRecord
from rekindle_inference.ports import Parsed
from rekindle_inference.state import Inventory, State
from rekindle_inference.usecases.purges import purge_volumes
from rekindle_inference.usecases.verification import verify
from rekindle_inference.usecases.volumes import Upload, Volumes, upload_volume
from rekindle_servicekit.idempotency import RequestKey
from rekindle_servicekit.objects import DirectoryObjects
from rekindle_servicekit.principal import Principal
from rekindle_servicekit.verification import Summary, VerifyOptions
from rekindle_servicekit.workers import Cancellation
from servers.postgresql import PostgresqlServer

PEOPLE, SECONDS = 8, 10.0
SIZE = (4, 4, 4)
GRID = Geometry(
    size=SIZE,
    spacing_mm=(1.0, 1.0, 1.0),
    origin_mm=(0.0, 0.0, 0.0),
    direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
)
ORGANS = (Organ(id="liver", label_value=1), Organ(id="spleen", label_value=2))


class Reader:
    """Reads a file that says which value all of its voxels have."""

    def read(self, path: Path, kind: VolumeKind, *_: Any, **__: Any) -> Parsed:
        value = int(path.read_text().split()[0])
        voxels = np.full(SIZE, value, np.uint8 if kind is VolumeKind.MASK else np.int16)
        return Parsed(data=canonical.encode(Volume(voxels, GRID), kind.value))


class Site:
    """One object store, two services, and the images that are there."""

    def __init__(self, url: str, folder: Path) -> None:
        self.folder = folder
        self.objects = DirectoryObjects(folder / "objects")
        self.states = [State(url) for _ in range(2)]
        self.images: list[VolumeRecord] = []
        self.done: Counter[str] = Counter()
        self._lock = threading.Lock()

    def work(self, person: int) -> None:
        """Take in and erase at random; of few bytes, so that they are others' too, or of many."""
        dice, state = random.Random(person), self.states[person % 2]
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            act = dice.random()
            try:
                if act < 0.35 or not self.images:
                    image = self.take_in(state, person, f"{dice.randrange(3)} image", dice.choice("pq"), None)
                    with self._lock:
                        self.images.append(image)
                elif act < 0.75:
                    image = dice.choice(self.images)
                    label = f"{dice.randrange(3)} mask {dice.random() if act < 0.55 else ''}"
                    self.take_in(state, person, label, image.project_id, image)
                else:
                    with self._lock:
                        image = self.images.pop(dice.randrange(len(self.images)))
                    self.erase(state, image)
            except (DependencyUnavailable, NotFound, IndexError, ValueError) as error:
                self.done[getattr(error, "reason", "NO_IMAGE")] += 1

    def take_in(
        self, state: State, person: int, text: str, project_id: str, image: VolumeRecord | None
    ) -> VolumeRecord:
        file = self.folder / f"file {person}"
        file.write_text(text)
        upload = Upload(
            project_id=project_id,
            kind=VolumeKind.IMAGE if image is None else VolumeKind.MASK,
            format=FileFormat.NIFTI,
            sha256=hashlib.sha256(text.encode()).hexdigest(),
            source=SourceReference(),
            modality=Modality.CT if image is None else None,
            image_volume_id="" if image is None else image.volume_id,
            coarse_mask_volume_id="",
            organs=() if image is None else ORGANS,
        )
        nobody: Any = None
        reader: Any = Reader()
        volumes = Volumes(
            state=state, objects=self.objects, reader=reader, writer=nobody, segmentations=nobody, max_voxels=64
        )
        taken = upload_volume(volumes, request("UploadVolume"), upload, file, Cancellation()).volume
        self.done[upload.kind] += 1
        return taken

    def erase(self, state: State, image: VolumeRecord) -> None:
        """As the scheduler does: until it is done."""
        while True:
            try:
                purge_volumes(
                    state,
                    self.objects,
                    request("PurgeVolumes"),
                    project_id=image.project_id,
                    volume_ids=[image.volume_id],
                    snapshot_digests=[],
                    forget_digests=[],
                )
            except DependencyUnavailable:
                continue
            self.done["erased"] += 1
            return

    def findings(self) -> list[tuple[str, str]]:
        options = VerifyOptions(deep=True, grace=timedelta(0))
        found = verify(Inventory(self.states[0].engine), self.objects, options, Summary(), Cancellation())
        return [(finding.kind.value, finding.where) for finding in found]


def request(method: str) -> RequestKey:
    principal = Principal(issuer="test", subject="alice", display_name="Alice")
    return RequestKey(principal=principal, method=method, request_id=uuid.uuid4().hex, digest="d")


@pytest.fixture
def site(postgresql: PostgresqlServer, tmp_path: Path) -> Iterator[Site]:
    site = Site(postgresql.create_database(), tmp_path)
    yield site
    for state in site.states:
        state.close()


def test_every_row_has_its_objects_and_nothing_of_what_was_erased_is_left(site: Site) -> None:
    """Neither bytes that others still have are lost, nor any that nobody has stay."""
    together([lambda person=person: site.work(person) for person in range(PEOPLE)])
    assert [] == site.findings(), site.done
    assert min(site.done[what] for what in ("image", "mask", "erased")) > 20, site.done
    for image in site.images:
        site.erase(site.states[0], image)
    assert [] == list(site.objects.list()), site.done
