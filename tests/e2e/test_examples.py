"""The example programs, run as processes against the three services."""

from __future__ import annotations

import csv
import json
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from dicom_phantom import series, to_bytes
from phantom import Phantom, manifest_for, threshold_onnx
from pydicom import Dataset
from rekindle.client import Client
from rekindle.config import HeldOut, Organ, Policy
from rekindle.projects import Project
from rekindle.volumes import with_geometry
from rekindle_local.stack import Stack, StackOptions
from seg_by_hand import masks_of

EXAMPLES = Path(__file__).parents[2] / "examples"
CASES = 3


def free_ports() -> int:
    """A port that is free together with the two after it."""

    def is_free(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) != 0

    return next(port for port in range(24150, 25150, 3) if all(is_free(port + offset) for offset in range(3)))


@pytest.fixture(scope="module")
def port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = free_ports()
    with Stack(StackOptions(state=tmp_path_factory.mktemp("state"), port=port)):
        yield port


@pytest.fixture(scope="module")
def client(port: int) -> Iterator[Client]:
    with Client.connect(f"127.0.0.1:{port}") as client:
        yield client


@pytest.fixture
def phantom() -> Phantom:
    return Phantom()


@pytest.fixture
def make_project(client: Client, phantom: Phantom, tmp_path: Path) -> Callable[[str], Project]:
    """A project of three cases in one round, labelled coarsely by an imported model."""

    def make(name: str) -> Project:
        policy = Policy(sizes=[CASES + 1], held_out=HeldOut(number=0))
        project = client.create_project(name, [Organ("liver", 6), Organ("spleen", 1)], policy=policy)
        for index in range(CASES):
            project.add_case(phantom.file(tmp_path, voxels=np.roll(phantom.image, index, axis=1)))
        project.close_registration()
        model = threshold_onnx(phantom.thresholds()).SerializeToString()
        project.start(igniter=project.import_model(manifest_for(model, phantom.thresholds()), model))
        deadline = time.monotonic() + 60
        while project.refresh().counts["predicted"] < CASES or project.current_round < 1:
            assert time.monotonic() < deadline, project.state_reason
            time.sleep(0.05)
        return project

    return make


@pytest.fixture
def run(port: int) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs an example with its arguments."""

    def run(name: str, *arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, EXAMPLES / name, "--address", f"127.0.0.1:{port}", *arguments]
        return subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=100, check=False)

    return run


def labels(path: Path) -> np.ndarray:
    return sitk.GetArrayFromImage(sitk.ReadImage(str(path)))


def test_a_folder_is_segmented(make_project, run, phantom, tmp_path):
    """Each scan gets its mask and its rows; what is no scan is named; a second run does only what is missing."""
    make_project("batch")
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for name, voxels in (("a.nii.gz", phantom.image), ("b.nii.gz", np.where(phantom.mask == 1, 0, phantom.image))):
        phantom.file(tmp_path, voxels=voxels.astype(np.int16)).rename(scans / name)
    (scans / "c.nii.gz").write_bytes(b"a letter")
    done = run("batch_folder.py", scans, out, "--project", "batch")
    assert (1, True) == (done.returncode, "c.nii.gz: " in done.stdout), done.stderr
    np.testing.assert_array_equal(phantom.mask, labels(out / "a.nii.gz"))
    with (out / "summary.csv").open() as file:
        rows = {(row["scan"], row["organ"]): row for row in csv.DictReader(file)}
    assert pytest.approx(960 * 0.08) == float(rows["a.nii.gz", "liver"]["ml"])
    assert ("", "yes") == (rows["b.nii.gz", "spleen"]["confidence"], rows["b.nii.gz", "spleen"]["doubtful"])
    (scans / "c.nii.gz").unlink()
    (out / "b.nii.gz").unlink()
    again = run("batch_folder.py", scans, out, "--project", "batch")
    assert (0, "b.nii.gz: done\n") == (again.returncode, again.stdout)


#: An "editor" that saves twice: first half of a correction, then all of it.
EDITOR = """
import sys, time
import SimpleITK as sitk
path = sys.argv[1]
image = sitk.ReadImage(path)
voxels = sitk.GetArrayFromImage(image)
for box in ((2, 12, 6), (2, 12, 7)):
    voxels[box] = 0
    changed = sitk.GetImageFromArray(voxels)
    changed.CopyInformation(image)
    sitk.WriteImage(changed, path)
    time.sleep(0.9)
"""


def test_cases_are_corrected_in_an_editor(make_project, run, tmp_path):
    """Two cases are handed in as the editor left them, with time that was measured and drafts on the way.

    Their corrections are delivered as results.
    """
    project = make_project("loop")
    (tmp_path / "editor.py").write_text(EDITOR)
    editor = f"{sys.executable} {tmp_path / 'editor.py'} {{mask}}"
    done = run("annotation_loop.py", "--editor", editor, "--cases", 2, "--project", "loop")
    assert 0 == done.returncode, done.stderr
    assert 2 == done.stdout.count("look first at slices")
    submissions = [*project.submissions()]
    assert 2 == len(submissions)
    for submission in submissions:
        coarse = project.download(project.case(submission.case_id).coarse_mask_volume_id).array()
        corrected = project.download(submission.mask_volume_id).array()
        assert {(2, 12, 6), (2, 12, 7)} == {tuple(map(int, at)) for at in np.argwhere(coarse != corrected)}
        assert 1.0 == submission.coarse_dice["spleen"] > submission.coarse_dice["liver"]
        assert 1.5 / 60 < submission.minutes < 1
    assert {"measured"} == {entry.source for entry in project.ledger()}
    feed = project.results(timeout_s=30)
    results = [next(feed), next(feed)]
    assert ["corrected"] * 2 == [result.origin for result in results]
    assert {each.id: each.mask_volume_id for each in submissions} == {
        result.submission_id: result.mask_volume_id for result in results
    }
    assert {project.active_model_version_id} == {result.model_version_id for result in results}


def test_cases_are_taken_along_and_handed_in(make_project, run, phantom, tmp_path):
    """All three fit; two are corrected and handed in, the third one is not; handing in again sends nothing twice."""
    project = make_project("offline")
    folder = tmp_path / "bag"
    taken = run("offline_session.py", "take", folder, "--minutes", 600, "--project", "offline")
    assert 0 == taken.returncode, taken.stderr
    cases = sorted(path.parent for path in folder.glob("*/lease.json"))
    assert CASES == len(cases)
    for case in cases[:2]:
        (case / "mask.nii.gz").write_bytes((case / "coarse.nii.gz").read_bytes())
        (case / "label.json").write_text(json.dumps({"statuses": {"liver": "accepted"}, "minutes": 3}))
    handed = run("offline_session.py", "hand-in", folder)
    assert (1, 2, 1) == (handed.returncode, handed.stdout.count(": handed in\n"), handed.stdout.count(": no mask\n"))
    assert {case.name for case in cases[:2]} == {submission.case_id for submission in project.submissions()}
    again = run("offline_session.py", "hand-in", folder)
    assert 2 == again.stdout.count(": handed in before\n")
    assert 2 == len([*project.submissions()])


@pytest.fixture
def study(phantom: Phantom, tmp_path: Path) -> Path:
    """The phantom as a folder of DICOM slices, with a letter in it."""

    def place(dataset: Dataset, number: int) -> None:
        dataset.ImagePositionPatient = [-60.0, -50.0, 100.0 + 5.0 * number]
        dataset.PixelSpacing = [4.0, 4.0]

    folder = tmp_path / "study"
    folder.mkdir()
    for number, dataset in enumerate(series((phantom.image.astype(np.int32) + 1024).astype(np.uint16), place)):
        (folder / f"{number}.dcm").write_bytes(to_bytes(dataset))
    (folder / "letter.txt").write_text("Dear radiologist")
    return folder


def test_a_study_goes_in_and_masks_come_out(make_project, run, phantom, study, tmp_path):
    """The model's mask comes as a SEG of the slices that went in; a correction takes its place."""
    project = make_project("pacs")
    pushed = run("pacs_push.py", "--project", "pacs", "push", study)
    assert 0 == pushed.returncode, pushed.stderr
    assert 0 == run("pacs_push.py", "--project", "pacs", "push", study).returncode
    (asked,) = project.segmentations()  # pushed again it is asked for once
    asked.wait(60)
    out, archive = tmp_path / "out", tmp_path / "archive.dcm"
    watching = ("--project", "pacs", "watch", out, "--send", f"cp {{path}} {archive}", "--seconds", 3)
    watched = run("pacs_push.py", *watching)
    assert (0, f"image {asked.volume_id}: model mask\n") == (watched.returncode, watched.stdout), watched.stderr
    instances = [f"1.2.3.1.1.{number}" for number in range(1, 13)]
    masks = masks_of(archive.read_bytes(), instances)
    np.testing.assert_array_equal(phantom.mask == 6, masks["liver"])
    corrected = phantom.mask.copy()
    corrected[2] = 0
    receipt = project.upload_mask(
        with_geometry(corrected, project.download(asked.volume_id).image()), image_volume_id=asked.volume_id
    )
    project.publish_result(receipt.mask_volume_id, submission_id="s1")
    watched = run("pacs_push.py", *watching)
    assert f"image {asked.volume_id}: corrected mask\n" == watched.stdout
    (kept,) = out.glob("*.dcm")
    assert kept.read_bytes() == archive.read_bytes()
    np.testing.assert_array_equal(corrected == 6, masks_of(archive.read_bytes(), instances)["liver"])
