"""Labels, leases and minutes survive an upgrade and a rollback while somebody labels: processes on one PostgreSQL."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import pytest
from phantom import Phantom, manifest_for, threshold_onnx
from rekindle.client import Client
from rekindle.config import HeldOut, Organ, Policy
from rekindle.leases import Lease
from rekindle.projects import Project
from rekindle.timer import TimeSegment
from releases import Release, Site, following, kept, present, site
from servers.postgresql import PostgresqlServer

pytestmark = pytest.mark.timeout(900)

CASES = 60
SECONDS = 30.0
#: Signs of life before each label, half a second apart: so there are cases until the end on a quick machine too.
RENEWALS = 4
ACCEPTED = {"liver": "accepted", "spleen": "accepted"}


@pytest.fixture
def installation(tmp_path: Path, postgresql: PostgresqlServer) -> Iterator[Site]:
    with site(tmp_path, postgresql) as made:
        yield made


@dataclass
class Annotator:
    """Leases and submits all the time, until it is told to stop; keeps what was acknowledged, and what went wrong."""

    client: Client
    project: Project
    labels: dict[str, str] = field(default_factory=dict)
    trouble: list[str] = field(default_factory=list)
    _stop: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def label_further(self, count: int) -> None:
        """Return once so many more labels are acknowledged."""
        wanted, deadline = len(self.labels) + count, time.monotonic() + 90
        while len(self.labels) < wanted:
            assert not self.trouble, self.trouble
            assert time.monotonic() < deadline, "nobody can label"
            time.sleep(0.05)

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(60)
        assert not self._thread.is_alive()
        assert [] == self.trouble

    def _work(self) -> None:
        try:
            while not self._stop.is_set():
                lease = self.project.lease_next(wait_s=60)
                assert lease is not None, "there are too few cases"
                for _ in range(RENEWALS):
                    lease.renew()
                    self._stop.wait(0.5)
                self.labels[lease.case.id] = submit(lease)
        except Exception as error:
            self.trouble.append(repr(error))


def submit(lease: Lease) -> str:
    """A label as accepted, after 30 simulated seconds; the id of the submission."""
    coarse = lease.coarse_label()
    assert coarse is not None
    segment = TimeSegment(
        kind="editing", active_seconds=SECONDS, start_time=lease.started, source="simulated", tool="test"
    )
    submission = lease.submit(coarse.data, ACCEPTED, time_segments=[segment])  # type: ignore[arg-type]
    assert submission.review_state == "accepted"
    return submission.id


def begin(client: Client, folder: Path) -> Project:
    """A project whose only round hands out all cases, labelled coarsely by an imported model."""
    phantom = Phantom()
    policy = Policy(sizes=[CASES], held_out=HeldOut(number=0), preset="tiny", recipe="default")
    project = client.create_project("kept", [Organ("liver", 6), Organ("spleen", 1)], policy=policy)
    project.add_seed_case(phantom.file(folder), phantom.file(folder, "mask"), modality="CT")
    for index in range(CASES):
        voxels = phantom.image + np.int16(index // 30)
        voxels = np.roll(voxels, index % 30 + 1, axis=1)
        project.add_case(phantom.file(folder, voxels=voxels))
    project.close_registration()
    model = threshold_onnx(phantom.thresholds()).SerializeToString()
    igniter = project.import_model(manifest_for(model, phantom.thresholds()), model)
    project.start(igniter=igniter)
    return project


def check(project: Project, labels: dict[str, str]) -> None:
    """Every acknowledged label is there and counts, no case has two, and each was 30 seconds of work, once."""
    submissions = list(project.submissions())
    assert labels == {item.case_id: item.id for item in submissions}
    assert len(labels) == len(submissions)
    labelled = {case.id for case in project.cases() if case.state == "labelled"}
    assert labels.keys() == labelled
    minutes = Counter(entry.submission_id for entry in project.ledger())
    assert dict.fromkeys(labels.values(), 1) == dict(minutes)
    assert project.report().ledger.minutes_total == pytest.approx(len(labels) * SECONDS / 60)


@pytest.fixture(params=["0.2", "next"])
def releases(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Release, Release]:
    """An older and a newer one: a kept release and the present one, and that one and what could come next.

    What comes next has one more migration in each service, and one more field in the scheduler's policies and rounds.
    """
    if request.param == "next":
        return present(), following(tmp_path / "next")
    return kept(request.param, tmp_path / request.param), present()


def test_an_upgrade_and_a_rollback_lose_nothing(
    installation: Site, releases: tuple[Release, Release], tmp_path: Path
) -> None:
    """The newer release migrates while the older serves, takes over and gives back, and the annotator notices nothing.

    Leases of the beginning and of the newer release are handed in at the end.
    """
    older, newer = releases
    for release in releases:
        release.check()
    installation.serve(older)
    with installation.client() as client, installation.client() as other:
        project = begin(client, tmp_path)
        first = project.lease_next(wait_s=60)
        assert first is not None
        annotator = Annotator(other, other.project(project.id))
        annotator.label_further(2)

        installation.migrate(newer)
        annotator.label_further(2)
        installation.serve(newer, MIGRATE_ON_START="false")
        annotator.label_further(2)
        second = project.lease_next(wait_s=60)
        assert second is not None
        project.refresh().update_policy(replace(project.policy, margin_dice=0.05))
        annotator.label_further(1)

        installation.serve(older, MIGRATE_ON_START="false")
        annotator.label_further(2)
        installation.serve(older)  # also where starting migrates
        annotator.label_further(2)

        annotator.stop()
        labels = {**annotator.labels, first.case.id: submit(first), second.case.id: submit(second)}
        assert len(labels) == len(annotator.labels) + 2
        check(project, labels)
        assert project.refresh().policy.margin_dice == pytest.approx(0.05)
        assert [] == project.runs()


def test_the_first_release_is_replaced_and_cannot_come_back(installation: Site, tmp_path: Path) -> None:
    """Its labels, leases and minutes survive; it serves while its databases are migrated, and is stopped first.

    It was made before releases read what newer ones write: it refuses a newer schema, and nothing is lost by that.
    """
    old, now = kept("0.1", tmp_path / "old"), present()
    old.check()
    installation.serve(old)
    with installation.client() as client, installation.client() as other:
        project = begin(client, tmp_path)
        first = project.lease_next(wait_s=60)
        assert first is not None
        annotator = Annotator(other, other.project(project.id))
        annotator.label_further(3)
        installation.migrate(now)
        annotator.label_further(3)
        installation.serve(now, beside=False)
        annotator.label_further(3)

        with pytest.raises(AssertionError, match="Can't locate revision"):
            installation.start(old, "scheduler")
        annotator.label_further(1)

        annotator.stop()
        labels = {**annotator.labels, first.case.id: submit(first)}
        check(project, labels)
