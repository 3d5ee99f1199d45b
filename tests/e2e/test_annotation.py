"""Drafts, sessions and reviews against the three services, from Python and from the command line."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from phantom import Phantom, manifest_for, threshold_onnx
from rekindle import offline
from rekindle.cli.commands import rekindle
from rekindle.client import Client
from rekindle.config import HeldOut, Organ, Policy
from rekindle.errors import IllegalTransition, LeaseLost
from rekindle.leases import Lease
from rekindle.projects import Project
from rekindle.records import NoCase
from rekindle.sessions import Session
from rekindle_local.stack import Stack, StackOptions

CASES = 3


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack(StackOptions(state=tmp_path_factory.mktemp("state"), port=0)) as running:
        yield running


@pytest.fixture(scope="module")
def client(stack: Stack) -> Iterator[Client]:
    addresses = stack.addresses
    with Client.connect(
        addresses["scheduler"], inference=addresses["inference"], trainer=addresses["trainer"]
    ) as connected:
        yield connected


@pytest.fixture(scope="module")
def phantom() -> Phantom:
    return Phantom()


@pytest.fixture
def make_project(client: Client, phantom: Phantom, tmp_path: Path) -> Callable[..., Project]:
    """A running project of three cases in one round, labelled coarsely by an imported model."""

    def make(name: str, **policy: Any) -> Project:
        organs = [Organ("liver", 6), Organ("spleen", 1)]
        rules = Policy(sizes=[CASES], held_out=HeldOut(number=0), **policy)
        project = client.create_project(name, organs, policy=rules)
        for index in range(CASES):
            voxels = np.roll(phantom.image, index, axis=1)
            project.add_case(phantom.file(tmp_path, voxels=voxels).read_bytes())
        project.close_registration()
        model = threshold_onnx(phantom.thresholds()).SerializeToString()
        manifest = manifest_for(model, phantom.thresholds())
        project.start(igniter=project.import_model(manifest, model))
        deadline = time.monotonic() + 60
        while project.refresh().current_round < 1 or project.counts["predicted"] < CASES:
            assert time.monotonic() < deadline, project.state_reason
            time.sleep(0.05)
        return project

    return make


@pytest.fixture
def command(stack: Stack) -> Callable[..., Any]:
    """Runs `rekindle` in this process and reads its JSON."""

    def run(*arguments: object, project: Project, fails: bool = False) -> Any:
        where = [f"--{name}={stack.addresses[name]}" for name in ("inference", "trainer")]
        shared = [f"--address={stack.addresses['scheduler']}", *where, "--project", project.id, "--json"]
        result: Result = CliRunner().invoke(rekindle, [*shared, *map(str, arguments)])
        if fails:
            assert result.exit_code not in (0, 1), result.output
            return result
        assert result.exit_code == 0, result.output
        return json.loads(result.stdout)

    return run


def next_lease(project: Project) -> Lease:
    lease = project.lease_next(wait_s=30)
    assert lease is not None
    return lease


def begin(project: Project, minutes: float, **more: Any) -> Session:
    """Once the round hands out cases."""
    deadline = time.monotonic() + 30
    while isinstance(session := project.session(minutes, **more), NoCase):
        assert time.monotonic() < deadline, session
        time.sleep(0.05)
    return session


def coarse(lease: Lease) -> bytes:
    label = lease.coarse_label()
    assert label is not None
    return label.data


def test_half_a_label_goes_from_one_tool_to_another(make_project: Callable[..., Project], client: Client) -> None:
    """With its mask, statuses and time; the first tool is shut out, and no second is counted twice."""
    project = make_project("tools")
    first = next_lease(project)
    first.timer.start("reading")
    time.sleep(0.05)
    first.save_draft(coarse(first), {"liver": "edited"}, note="half way")
    second = client.resume(first.ticket(), tool="tool B")
    kept = second.draft()
    assert kept is not None
    assert ({"liver": "edited"}, "half way", coarse(first)) == (kept.statuses, kept.note, kept.mask().data)
    assert (first.id, first.started, "tool B") == (second.id, second.started, second.tool)
    with pytest.raises(LeaseLost) as lost:
        first.save_draft(coarse(first))
    assert project.draft(lost.value.metadata["draft_id"]).late
    second.timer.start("editing")
    time.sleep(0.05)
    submission = second.submit(coarse(second), {"spleen": "accepted"})
    booked = [entry for entry in project.ledger() if entry.submission_id == submission.id]
    assert {"reading", "editing"} == {entry.kind for entry in booked}
    assert submission.minutes == pytest.approx(sum(entry.minutes for entry in booked))
    assert 0.1 / 60 <= submission.minutes < 1.0


def test_a_label_is_withdrawn_and_corrected(make_project: Callable[..., Project]) -> None:
    """Back in the round after the withdrawal; a correction is measured against the label that it starts from."""
    project = make_project("corrections")
    lease = next_lease(project)
    stored = lease.submit(coarse(lease))
    assert "withdrawn" == project.withdraw(stored.id, "wrong scan").review_state
    assert "ready" == next(case.state for case in project.cases() if case.id == stored.case_id)
    lease = project.lease(stored.case_id)
    second = lease.submit(coarse(lease))
    again = project.lease(stored.case_id, revise=True)
    shown = again.standing_label()
    assert shown is not None
    third = again.submit(shown.data)
    assert (second.id, second.id, 3) == (
        third.supersedes_submission_id,
        third.started_from_submission_id,
        third.revision,
    )
    assert {1.0} == set(third.coarse_dice.values()) - {None}
    assert [third.id] == [case.submission_id for case in project.cases() if case.id == stored.case_id]
    with pytest.raises(IllegalTransition, match="superseded"):
        project.withdraw(second.id)


def test_a_session_fetches_ahead_and_gives_back(make_project: Callable[..., Project]) -> None:
    """Every case comes with the files of its own; what was not handed in is free afterwards."""
    project = make_project("sessions")
    with begin(project, 1440.0) as session:
        assert 3 == len(session.leases) == session.cases
        images: set[bytes] = set()
        for number, lease in enumerate(session):
            images.add(lease.image().data)
            if number == 0:
                lease.submit(coarse(lease))
        assert 3 == len(images)
        assert [session.id] == [each.id for each in project.sessions()]
        assert 2 == len(project.open_session(session.id).leases)
    assert [] == list(project.sessions())
    assert {"labelled": 1, "ready": CASES - 1} == {
        state: sum(case.state == state for case in project.cases()) for state in ("labelled", "ready")
    }


def test_scans_are_taken_along_and_handed_in(
    make_project: Callable[..., Project], command: Callable[..., Any], tmp_path: Path
) -> None:
    """Two labels offline, with a status and a time; handed in twice, each is there once."""
    project = make_project("offline")
    begin(project, 1.0).end()
    out = tmp_path / "out"
    taken = command("session", "take", 1440, "--detached", "--out", out, project=project)
    folders = [out / case["case_id"] for case in taken["cases"]]
    assert (3, True) == (len(folders), taken["detached"])
    for folder in folders[:2]:
        shutil.copy(folder / "coarse.nii.gz", folder / "mask.nii.gz")
    (folders[0] / "label.json").write_text(json.dumps({"statuses": {"spleen": "accepted"}, "minutes": 7.5}))
    done = {item["case_id"]: item["outcome"] for item in command("session", "hand-in", out, project=project)}
    assert ["handed-in", "handed-in", "no-mask"] == [done[folder.name] for folder in folders]
    again = command("session", "hand-in", out, "--end", project=project)
    assert {"handed-in-before": 2, "no-mask": 1} == {
        outcome: sum(item["outcome"] == outcome for item in again) for outcome in ("handed-in-before", "no-mask")
    }
    listed = command("submission", "list", "--mine", project=project)
    assert [0.0, 7.5] == sorted(item["minutes"] for item in listed)
    assert [] == command("session", "list", project=project)
    assert [] == command("leases", "list", project=project)


def test_a_hand_in_whose_answer_was_lost_is_found_again(
    make_project: Callable[..., Project], command: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder looks as before the hand-in: sending it again is the same submission, its time too."""
    project = make_project("lost answers")
    next_lease(project).release()
    folder = Path(command("next", "--out", tmp_path / "day", project=project)["folder"])
    before = tmp_path / "before"
    kept = _copies_of_elapsed(tmp_path, monkeypatch)
    shutil.copytree(folder, before)
    first = command("submit", folder, "--accept", "--count-elapsed", project=project)
    # What was written down before the label was sent is still there; what came with the answer is not.
    shutil.copy(before / "lease.json", folder / "lease.json")
    (folder / "submission.json").unlink()
    shutil.copy(kept, folder / "elapsed.json")
    time.sleep(0.05)
    assert first == command("submit", folder, "--accept", "--count-elapsed", project=project)
    assert first["minutes"] > 0
    assert [first["id"]] == [item["id"] for item in command("submission", "list", project=project)]


def _copies_of_elapsed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where a copy is kept of the time that a hand-in writes down before it sends anything."""
    original, kept = offline._write, folder / "elapsed.json"

    def write(file: Path, content: object) -> None:
        original(file, content)
        if file.name == offline.ELAPSED:
            shutil.copy(file, kept)

    monkeypatch.setattr(offline, "_write", write)
    return kept


def test_drafts_at_the_command_line(
    make_project: Callable[..., Project], command: Callable[..., Any], tmp_path: Path
) -> None:
    """Saved here, taken up there with mask and time; the total at the end is the total in the ledger."""
    project = make_project("drafts")
    next_lease(project).release()
    here = Path(command("next", "--out", tmp_path / "here", project=project)["folder"])
    shutil.copy(here / "coarse.nii.gz", here / "mask.nii.gz")
    kept = command("draft", "save", here, "--status", "liver=edited", "--minutes", 3, project=project)
    again = command("draft", "save", here, "--status", "liver=edited", "--minutes", 5, project=project)
    assert (3.0, 5.0, 2) == (kept["minutes"], pytest.approx(again["minutes"]), again["revision"])
    assert [kept["id"]] == [item["id"] for item in command("draft", "list", project=project)]
    there = command("take-up", kept["case_id"], "--out", tmp_path / "there", project=project)
    folder = Path(there["folder"])
    assert (here / "mask.nii.gz").read_bytes() == (folder / "mask.nii.gz").read_bytes()
    late = command("draft", "save", here, project=project, fails=True)
    assert "kept" in late.stderr
    submitted = command("submit", folder, "--minutes", 8, project=project)
    assert 8.0 == pytest.approx(submitted["minutes"])
    assert 8.0 == pytest.approx(project.report().ledger.minutes_total)


def test_reviews_at_the_command_line(
    make_project: Callable[..., Project], command: Callable[..., Any], tmp_path: Path
) -> None:
    """A label waits, is accepted, and is withdrawn again by its annotator."""
    project = make_project("reviews", review_required=True, review_own=True)
    lease = next_lease(project)
    lease.submit(coarse(lease))
    (waiting,) = command("submission", "list", "--state", "pending", project=project)
    assert "in-review" == next(case.state for case in project.cases() if case.id == waiting["case_id"])
    judged = command("submission", "review", waiting["id"], "--accept", "--comment", "fine", project=project)
    assert ("accepted", "fine") == (judged["review_state"], judged["review_comment"])
    twice = command("submission", "review", waiting["id"], "--accept", project=project, fails=True)
    assert 4 == twice.exit_code
    taken_back = command("submission", "withdraw", waiting["id"], "--reason", "oops", project=project)
    assert "withdrawn" == taken_back["review_state"]


@pytest.mark.parametrize(("page", "place"), [("annotation.md", 0), ("sdk.md", -1)])
def test_examples_of_the_documentation_run(
    make_project: Callable[..., Project], client: Client, monkeypatch: pytest.MonkeyPatch, page: str, place: int
) -> None:
    """As they are written; each leaves labels behind, and nobody holds a case afterwards."""
    project = make_project(page)
    next_lease(project).release()
    monkeypatch.setattr("rekindle.connect", lambda address: client)
    monkeypatch.setattr(Client, "projects", lambda self: iter([project]))
    monkeypatch.setattr(Client, "close", lambda self: None)
    text = (Path(__file__).parents[2] / "docs" / page).read_text()
    exec(compile(re.findall(r"```python\n(.*?)```", text, re.DOTALL)[place], page, "exec"), {})
    assert [] == project.my_leases()
    assert {"accepted"} == {item.review_state for item in project.submissions()}
