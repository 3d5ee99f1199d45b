"""`rekindle next`, `submit` and `leases`: an annotator's day at the command line."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fake_world import Command, World, stamp
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.errors import LeaseLost
from rekindle.projects import Project


@pytest.fixture
def folder(command: Command, ready_case: str, tmp_path: Path) -> Path:
    """The folder that `rekindle next` made, with a correction in it."""
    assert 0 == command("next", "--out", tmp_path).exit_code
    (tmp_path / ready_case / "mask.nii.gz").write_bytes(b"corrected")
    return tmp_path / ready_case


def test_next_makes_a_folder_and_says_what_to_do(command: Command, ready_case: str, tmp_path: Path) -> None:
    """Image, draft and lease lie in a folder named after the case; the text names the next command."""
    result = command("next", "--out", tmp_path)
    folder = tmp_path / ready_case
    assert 0 == result.exit_code
    assert b"image bytes" == (folder / "image.nii.gz").read_bytes()
    assert b"coarse bytes" == (folder / "coarse.nii.gz").read_bytes()
    assert f"rekindle submit {folder} --minutes" in result.stdout
    assert "liver = 1, spleen = 2" in result.stdout
    assert "about 6 min" in result.stdout


def test_next_as_json(command: Command, ready_case: str, tmp_path: Path) -> None:
    """Programs get the folder and the case on stdout, and nothing else."""
    data = json.loads(command("next", "--out", tmp_path, "--json").stdout)
    assert (ready_case, str(tmp_path / ready_case), False) == (
        data["case_id"],
        data["folder"],
        data["complete"],
    )


def test_hold_sets_how_long_the_scan_stays_mine(
    command: Command, ready_case: str, tmp_path: Path, world: World
) -> None:
    """--hold asks for a lease of so many minutes."""
    command("next", "--out", tmp_path, "--hold", "90")
    (request,) = world.requests("LeaseNextCase")
    assert 90 * 60 == request.duration.seconds


def test_scan_that_cannot_be_fetched_is_given_back(
    command: Command, ready_case: str, tmp_path: Path, world: World
) -> None:
    """A failed download does not keep the case from others."""
    volume, data = world.volumes[world.cases[ready_case].volume_id]
    world.volumes[world.cases[ready_case].volume_id] = (volume, data + b"!")
    result = command("next", "--out", tmp_path)
    assert (1, 1) == (result.exit_code, len(world.released))
    assert "arrived damaged" in result.stderr


def test_no_scan_now_says_why(command: Command, project: Project, world: World) -> None:
    """While the model is prepared, the reason is told with the exit code of `not now`."""
    result = command("next")
    assert 5 == result.exit_code
    assert "the model is being trained" in result.stderr


def test_everything_labelled_is_no_error(command: Command, ready_case: str, world: World) -> None:
    """The end of the work is told, not raised."""
    world.cases[ready_case].state = records.CASE_STATE_LABELLED
    assert "there is no case left" in command("next").stdout
    assert {"complete": True} == json.loads(command("next", "--json").stdout)


def test_submit_hands_in_the_mask_without_inventing_time(command: Command, folder: Path, world: World) -> None:
    """Without a word about time nothing is booked, and the annotator is told so."""
    result = command("submit", folder)
    assert 0 == result.exit_code
    (request,) = world.requests("Submit")
    assert [] == list(request.time_segments)
    assert "No working time was recorded" in result.stderr
    (submission,) = world.submissions
    assert b"corrected" == world.volumes[submission.mask_volume_id][1]
    assert not (folder / "lease.json").exists()
    assert submission.submission_id == json.loads((folder / "submission.json").read_text())["id"]


def test_stated_minutes_are_inferred_time(command: Command, folder: Path, world: World) -> None:
    """--minutes is kept as inferred, never as measured."""
    command("submit", folder, "--minutes", "7.5", "--status", "spleen=out-of-view")
    (request,) = world.requests("Submit")
    (segment,) = request.time_segments
    assert (450.0, common.TIME_SOURCE_INFERRED) == (segment.active_seconds, segment.source)
    statuses = {state.organ_id: state.status for state in request.organ_states}
    assert {
        "liver": common.ORGAN_STATUS_EDITED,
        "spleen": common.ORGAN_STATUS_OUT_OF_VIEW,
    } == statuses


def test_elapsed_time_ends_with_the_lease(command: Command, folder: Path, world: World) -> None:
    """--count-elapsed counts from `next`, inferred, and not beyond the time that the case was held."""
    (lease,) = world.leases.values()
    start = datetime.now(UTC) - timedelta(hours=3)
    lease.start_time.CopyFrom(stamp(start))
    lease.expire_time.CopyFrom(stamp(start + timedelta(hours=1)))
    command("submit", folder, "--count-elapsed")
    (segment,) = world.requests("Submit")[0].time_segments
    assert (3600.0, common.TIME_SOURCE_INFERRED) == (segment.active_seconds, segment.source)


def test_two_reckonings_of_time_are_refused(command: Command, folder: Path, world: World) -> None:
    """One says --minutes or --count-elapsed."""
    result = command("submit", folder, "--minutes", "3", "--count-elapsed")
    assert (2, []) == (result.exit_code, world.requests("Submit"))


def test_accept_hands_in_the_draft(command: Command, folder: Path, world: World) -> None:
    """--accept submits the coarse label unchanged, every organ accepted."""
    (folder / "mask.nii.gz").unlink()
    assert 0 == command("submit", folder, "--accept", "--minutes", "1").exit_code
    (submission,) = world.submissions
    assert b"coarse bytes" == world.volumes[submission.mask_volume_id][1]
    assert {common.ORGAN_STATUS_ACCEPTED} == {state.status for state in submission.organ_states}


def test_mask_file_of_any_name_is_taken(command: Command, folder: Path, world: World) -> None:
    """The mask may be named instead of the folder; the lease lies beside it."""
    (folder / "liver final.nii.gz").write_bytes(b"final")
    result = command("submit", folder / "liver final.nii.gz", "--json")
    assert 0 == result.exit_code
    assert b"final" == world.volumes[json.loads(result.stdout)["mask_volume_id"]][1]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--status", "spleen"], 2, "ORGAN=STATUS"),
        (["--status", "spleen=gone"], 2, "STATUS one of edited"),
        (["--status", "kidney=absent"], 2, "unknown organs ['kidney']"),
        (["--minutes", "-1"], 2, "--minutes"),
    ],
)
def test_wrong_words_are_refused(
    command: Command, folder: Path, world: World, arguments: list[str], code: int, message: str
) -> None:
    """What cannot be meant is named, and nothing is submitted."""
    result = command("submit", folder, *arguments)
    assert code == result.exit_code
    assert message in result.stderr
    assert [] == world.requests("Submit")


def test_missing_files_are_named(command: Command, folder: Path) -> None:
    """A folder without a mask, submitted twice, or of no lease says what is missing."""
    (folder / "mask.nii.gz").rename(folder / "mask2.nii.gz")
    missing = command("submit", folder)
    (folder / "mask2.nii.gz").rename(folder / "mask.nii.gz")
    assert 0 == command("submit", folder).exit_code
    twice, elsewhere = command("submit", folder), command("submit", folder.parent)
    assert [3, 2, 3] == [result.exit_code for result in (missing, twice, elsewhere)]
    assert "has no mask.nii.gz" in missing.stderr
    assert "was submitted already" in twice.stderr
    assert "has no lease.json" in elsewhere.stderr


def test_lost_scan_tells_where_the_label_is(command: Command, folder: Path, world: World) -> None:
    """When somebody else took the case, the draft is named and the folder stays as it is."""
    world.failures["Submit"] = [LeaseLost("somebody else has it", metadata={"draft_submission_id": "d-4"})]
    result = command("submit", folder)
    assert 4 == result.exit_code
    assert "error: somebody else has it\n  Your label is not lost: it is kept as draft d-4." in result.stderr
    assert (folder / "lease.json").exists()


def test_leases_are_listed(command: Command, folder: Path, ready_case: str) -> None:
    """The table and the JSON name the cases that are mine."""
    assert ready_case in command("leases", "list").stdout
    (lease,) = json.loads(command("leases", "list", "--json").stdout)
    assert (ready_case, 1, 6.5) == (lease["case_id"], lease["round"], lease["predicted_minutes"])


@pytest.mark.parametrize("by", ["folder", "case"])
def test_scan_is_given_back(command: Command, folder: Path, world: World, by: str) -> None:
    """By folder or by case; the mask stays, and the reason arrives."""
    which = folder if by == "folder" else folder.name
    result = command("leases", "release", which, "--reason", "wrong protocol")
    assert 0 == result.exit_code
    assert ["wrong protocol"] == [request.reason for request in world.released]
    assert (folder / "mask.nii.gz").exists()


def test_giving_back_what_is_not_mine_fails(command: Command, project: Project) -> None:
    """An unknown case is not found."""
    assert 3 == command("leases", "release", "case-9").exit_code


def test_next_leases_a_labelled_scan_to_correct_it(
    command: Command, ready_case: str, tmp_path: Path, world: World
) -> None:
    """--revise with --case; without a case there is nothing to correct."""
    assert 0 == command("next", "--case", ready_case, "--revise", "--out", tmp_path).exit_code
    (request,) = world.requests("LeaseCase")
    assert (ready_case, True, "rekindle command line") == (request.case_id, request.revise, request.tool)
    assert 2 == command("next", "--revise", "--out", tmp_path).exit_code
