"""What operators do, over running services: verify what is stored, erase a patient."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rekindle.cli.commands import rekindle
from rekindle.client import Client
from rekindle.errors import AlreadyExists, NotFound, RekindleError
from rekindle.projects import Project
from rekindle_local.stack import Stack, StackOptions
from small_campaign import begin, label, wait_for

INSTALLATION = "site-a"
#: What a hospital might use as the key of a group, and must not.
PATIENT = "CANARY-4711-DOE-JANE"


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Services of an installation with a name."""
    options = StackOptions(state=tmp_path_factory.mktemp("state"), port=0, installation_id=INSTALLATION)
    with Stack(options) as running:
        yield running


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Client]:
    with stack.client() as connected:
        yield connected


@pytest.fixture(scope="module")
def project(client: Client, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A patient with two cases, one of them labelled and trained on, and another patient with two."""
    project = begin(client, tmp_path_factory.mktemp("files"), groups=[PATIENT, PATIENT, "other", "other"])
    label(project, next(project.cases()).id)
    wait_for(lambda: project.round(1).state == "closed", "round 1 does not close")
    return project


def verify(stack: Stack, *options: str) -> tuple[int, dict[str, Any]]:
    """Exit code and JSON of the command, with a grace period of a second."""
    addresses = {f"REKINDLE_{name.upper()}": address for name, address in stack.addresses.items()}
    environment = {**addresses, "REKINDLE_ADDRESS": stack.addresses["scheduler"]}
    done = CliRunner().invoke(
        rekindle, ["verify", "--json", "--grace", "0.0002", *options], env=environment, catch_exceptions=False
    )
    return done.exit_code, json.loads(done.stdout)


def found(answer: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(item["kind"], item["service"], item["where"]) for item in answer["findings"]}


def test_a_trained_project_is_sound_to_the_last_byte(stack: Stack, project: Project) -> None:
    """Nothing is missing, damaged, inconsistent or orphaned, no checkpoint is left, every object has the prefix."""
    wait_for(lambda: verify(stack)[1]["findings"] == [], "something is young or orphaned for ever")

    code, answer = verify(stack, "--deep")

    stored = [path for path in stack.objects_dir.rglob("*") if path.is_file()]
    assert (code, answer["findings"], answer["is_sound"]) == (0, [], True)
    assert answer["objects"] >= len(stored)
    assert stored
    assert {path.relative_to(stack.objects_dir).parts[0] for path in stored} == {INSTALLATION}
    assert not [path for path in stored if "checkpoint" in path.parts]


@pytest.mark.timeout(420)
def test_a_project_moves_to_other_services_and_goes_on(
    stack: Stack, project: Project, client: Client, tmp_path: Path
) -> None:
    """Its archive is the same there, byte for byte; the import may be repeated; cases are labelled and trained on."""
    archive = project.export(tmp_path / "project.tar")
    counts = project.refresh().counts
    with Stack(StackOptions(state=tmp_path / "elsewhere", port=0)) as other, other.client() as there:
        moved = there.import_project(archive)
        again = moved.export(tmp_path / "again.tar")
        assert archive.read_bytes() == again.read_bytes()
        assert there.import_project(archive).id == project.id

        assert moved.counts == counts
        assert [item.id for item in moved.models()] == [item.id for item in project.models()]
        assert there.verify(deep=True).is_sound
        label(moved, next(case for case in moved.cases() if case.state == "ready").id)
        wait_for(lambda: bool(moved.round(2).run_id), "round 2 does not train")
        assert moved.run(moved.round(2).run_id).state in ("queued", "running", "succeeded")

        # A run under way is archived as one that has not begun.
        under_way = moved.export(tmp_path / "under-way.tar")
        with pytest.raises(AlreadyExists):
            client.import_project(under_way)
        with pytest.raises(AlreadyExists):
            there.import_project(under_way)
    assert project.refresh().counts == counts


def traces(stack: Stack, needles: dict[str, str]) -> set[str]:
    """Of these, what is still found in any file of the state: databases, objects and their names, logs."""
    found: set[str] = set()
    for path in Path(stack.objects_dir).parent.rglob("*"):
        data = str(path).encode() + (path.read_bytes() if path.is_file() else b"")
        found |= {name for name, needle in needles.items() if needle.encode() in data}
    return found


@pytest.mark.timeout(420)
def test_nothing_of_an_erased_patient_is_found_anywhere(stack: Stack, client: Client, project: Project) -> None:
    """Also with inference away when it begins, and every service killed on the way; the rest goes on."""
    first, second, *_ = project.cases()
    needles = {"patient": PATIENT}
    for case in (first, second):
        volume = project.volume(case.volume_id)
        needles |= {f"{case.id} original": volume.original_digest, f"{case.id} image": volume.canonical_digest}
        needles |= {f"{case.id} coarse": project.volume(case.coarse_mask_volume_id).canonical_digest}
    needles["label"] = next(project.submissions()).mask_digest
    sustainer = next(item for item in project.models() if item.role == "sustainer")
    held = project.lease(second.id)
    assert traces(stack, needles) == set(needles)

    stack.kill_service("inference")
    purge = project.purge(group_key=PATIENT, reason="asked for by the patient")
    assert purge.state == "erasing"
    assert [case.state for case in project.cases()][:2] == ["purged", "purged"]
    wait_for(lambda: "inference" in purge.refresh().waiting_for, "nobody says that inference is away")
    stack.kill_service("scheduler")
    stack.kill_service("trainer")
    for service in ("inference", "trainer", "scheduler"):
        stack.start_service(service)
    wait_for(lambda: purge.refresh().state == "done", "the purge does not end")

    assert traces(stack, needles) == set()
    assert sorted(purge.case_ids) == sorted([first.id, second.id])
    assert purge.submissions == 1
    assert purge.volumes >= 5
    assert purge.marked_model_version_ids == (sustainer.id,)
    assert [item.id for item in project.models() if item.trained_on_purged] == [sustainer.id]
    with pytest.raises(NotFound) as caught:
        project.download(first.volume_id)
    assert caught.value.reason == "PURGED"
    with pytest.raises(RekindleError):
        held.renew()
    assert client.verify().is_sound


def test_what_is_missing_damaged_orphaned_and_lost_is_named(stack: Stack, project: Project) -> None:
    """Each by its key or row, with the exit code 1; a damaged byte is seen only by --deep."""
    objects = stack.objects_dir / INSTALLATION
    first, second = (project.volume(case.volume_id) for case in project.cases() if case.state != "purged")
    canonical = objects / "canonical" / first.canonical_digest
    kept = canonical.read_bytes()
    canonical.unlink()
    original = objects / "volumes" / second.original_digest
    original.write_bytes(original.read_bytes()[:-1] + b"?")
    spare = objects / "canonical" / ("ab" * 32)
    spare.write_bytes(b"of an upload that never ended")
    os.utime(spare, (0, 0))
    weights = project.runs()[0].weights_digest
    (objects / "weights" / weights).unlink()

    code, answer = verify(stack)
    deep_code, deep = verify(stack, "--deep")

    shallow = {
        ("missing", "inference", f"canonical/{first.canonical_digest}"),
        ("missing", "trainer", f"weights/{weights}"),
        ("orphaned", "inference", f"canonical/{'ab' * 32}"),
    }
    assert (code, found(answer)) == (1, shallow)
    assert (deep_code, found(deep)) == (1, shallow | {("damaged", "inference", f"volumes/{second.original_digest}")})
    canonical.write_bytes(kept)


def test_a_database_from_an_older_backup_is_found(stack: Stack, project: Project) -> None:
    """Rows of the scheduler that inference has forgotten are missing, and a pointer elsewhere is inconsistent."""
    case = next(case for case in project.cases() if case.state != "purged")
    state = Path(stack.objects_dir).parent / "inference.sqlite3"
    with sqlite3.connect(state) as database:
        database.execute("UPDATE volumes SET project_id = 'elsewhere' WHERE volume_id = ?", [case.volume_id])
        database.execute("DELETE FROM active_models")
    database.close()

    code, answer = verify(stack)

    assert code == 1
    assert ("missing", "scheduler", f"cases/{case.id}") in found(answer)
    assert ("inconsistent", "scheduler", f"projects/{project.id}") in found(answer)
