"""`rekindle project`, `seeds`, `cases`, `models`, `runs`, `rounds`, `report`, `segment`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fake_world import Command, World
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.api.trainer.v1 import trainer_pb2 as trainer
from rekindle.cli.cases import STATES
from rekindle.client import Client
from rekindle.projects import Project


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    """A folder with two scans of one patient, one of another, and something else."""
    for name in ("P1_a.nii.gz", "P1_b.nii.gz", "P2_a.nii"):
        (tmp_path / name).write_bytes(name.encode())
    (tmp_path / "notes.txt").write_text("not a scan")
    return tmp_path


def test_project_is_made_with_its_policy(command: Command, world: World) -> None:
    """Organs, codes, modality and policy arrive."""
    result = command(
        "project", "create", "Liver MR", "--organ", "liver=1:SCT:10200004:Liver", "--organ", "spleen=2",
        "--modality", "mr", "--sizes", "2,2,3", "--held-out", "4", "--held-out-schedule", "first", "--seed", "5",
    )  # fmt: skip
    assert (0, "Made project 'Liver MR' (project-1).\n") == (result.exit_code, result.stdout)
    shown = json.loads(command("project", "show", "--json").stdout)
    assert ("Liver MR", "MR", "draft") == (shown["name"], shown["modality"], shown["state"])
    assert [["SCT", "10200004", "Liver"], None] == [organ["code"] for organ in shown["organs"]]
    assert ([2, 2, 3], 4, "first", 5) == (
        shown["policy"]["sizes"],
        shown["policy"]["held_out"]["number"],
        shown["policy"]["held_out"]["schedule"],
        shown["policy"]["seed"],
    )


def test_training_is_limited_by_options(command: Command, world: World) -> None:
    """Window and budget are set, shown with what is spent and why runs wait, and taken away; a wrong one is refused."""
    command("project", "create", "Trial", "--organ", "liver=1")
    window = "mon,Tuesday 20:00-06:00 Europe/Berlin"
    shown = command("project", "policy", "--training-window", window, "--gpu-seconds", "7200").stdout
    assert "monday, tuesday 20:00 to 06:00 Europe/Berlin, on at most 7200 GPU seconds" in " ".join(shown.split())
    limits = " ".join(command("runs", "limits").stdout.split())
    assert "1234 of 7200" in limits
    assert "opens at 20:00 Europe/Berlin" in limits
    stored = json.loads(command("runs", "limits", "--json").stdout)
    assert (7200.0, ["monday", "tuesday"]) == (stored["gpu_seconds_budget"], stored["window"]["days"])
    command("project", "policy", "--training-window", "none")
    assert "at any time" in command("runs", "limits").stdout
    for wrong in ("20:00", "sometimes 20:00-06:00 UTC", "mo 20:00-06:00 UTC"):
        assert 0 != command("project", "policy", "--training-window", wrong).exit_code


def test_promotion_and_pool_are_set_by_options(command: Command, world: World) -> None:
    """How many scans are predicted before a round, and from how many held-out ones on these decide, in words too."""
    command("project", "create", "p", "--organ", "liver=1")
    assert "of all cases before a round opens" in " ".join(command("project", "policy").stdout.split())
    changed = ("project", "policy", "--candidate-pool", "500", "--min-held-out-cases", "7")
    assert (500, 7) == tuple(
        json.loads(command(*changed, "--json").stdout)[n] for n in ("candidate_pool", "min_held_out_cases")
    )
    shown = " ".join(command("project", "policy").stdout.split())
    assert "of 500 cases before a round opens" in shown
    assert "by held-out cases once 7 are labelled" in shown
    assert 2 == command("project", "policy", "--min-held-out-cases", "0").exit_code


def test_policy_is_changed_in_parts(command: Command, world: World) -> None:
    """Options that are not given stay as they were; a new sizing replaces the old one."""
    command("project", "create", "p", "--organ", "liver=1", "--sizes", "2,3", "--seed", "5")
    changed = json.loads(command("project", "policy", "--geometric", "4,1.5", "--json").stdout)
    assert (None, [4, 1.5], 5) == (changed["sizes"], changed["geometric"], changed["seed"])
    assert "4 cases, growing by 1.5 each round" in command("project", "policy").stdout
    assert 1 == len(world.requests("UpdatePolicy"))


@pytest.mark.parametrize(
    "options",
    [["--organ", "liver"], ["--organ", "liver=x"], ["--organ", "liver=1:SCT"], ["--organ", "=1"], []],
)
def test_unclear_organs_are_refused(command: Command, options: list[str]) -> None:
    """An organ needs a name and a value."""
    assert 2 == command("project", "create", "p", *options).exit_code


@pytest.mark.parametrize(
    "options",
    [["--sizes", "2;3"], ["--geometric", "4"], ["--held-out", "many"], ["--sizes", "2", "--geometric", "4,2"]],
)
def test_unclear_policies_are_refused(command: Command, world: World, options: list[str]) -> None:
    """Nothing is made from a policy that cannot be read."""
    result = command("project", "create", "p", "--organ", "liver=1", *options)
    assert (2, {}) == (result.exit_code, world.projects)
    assert result.stderr.startswith("error: ")


def test_projects_are_listed(command: Command, client: Client) -> None:
    """Every project is in the table and in the JSON."""
    for name in ("one", "two"):
        client.create_project(name, [])
    table = command("project", "list").stdout
    assert "one" in table
    assert "two" in table
    assert ["one", "two"] == [item["name"] for item in json.loads(command("--json", "project", "list").stdout)]


def test_project_must_be_said_when_there_are_several(command: Command, client: Client) -> None:
    """The only project is taken; of several one is named, by name or id; a wrong name is not found."""
    none = command("project", "show")
    first = client.create_project("one", [])
    alone = command("project", "show")
    client.create_project("two", [])
    several = command("project", "show")
    by_name, by_id = command("--project", "two", "project", "show"), command("project", "show", "--project", first.id)
    wrong = command("project", "show", "--project", "three")
    results = [none, alone, several, by_name, by_id, wrong]
    assert [3, 0, 2, 0, 0, 3] == [result.exit_code for result in results]
    assert "'one', 'two'" in several.stderr


def test_project_starts_once(command: Command, project: Project) -> None:
    """A second start is a conflict."""
    first, second = command("project", "start"), command("project", "start")
    assert [0, 4] == [first.exit_code, second.exit_code]
    assert "error: the project was started before\n" == second.stderr


def test_stalled_project_is_retried(command: Command, project: Project, world: World) -> None:
    """`show` says why it stalled; `retry` goes on."""
    world.projects[project.id].state = records.PROJECT_STATE_STALLED
    world.projects[project.id].state_reason = "the run failed"
    assert "stalled: the run failed" in command("project", "show").stdout
    assert "active" == json.loads(command("project", "retry", "--json").stdout)["state"]


def test_scans_of_a_folder_are_added(command: Command, project: Project, scans: Path, world: World) -> None:
    """NIfTI files become cases, grouped by patient; adding again adds nothing; --close closes."""
    first = command("cases", "add", scans, "--group-from", r"^(P\d+)_")
    added = json.loads(command("cases", "add", scans, "--group-from", r"^(P\d+)_", "--close", "--json").stdout)
    assert f"3 cases of {scans} in 'Abdomen' now.\n" == first.stdout
    assert [("P1_a.nii.gz", "P1"), ("P1_b.nii.gz", "P1"), ("P2_a.nii", "P2")] == [
        (item["file"], item["group_key"]) for item in added
    ]
    assert 3 == len(world.cases)
    assert not world.projects[project.id].registration_open


@pytest.mark.parametrize(("pattern", "message"), [("(", "no regular expression"), ("^Q", "finds nothing")])
def test_group_pattern_must_fit(
    command: Command, project: Project, scans: Path, world: World, pattern: str, message: str
) -> None:
    """A pattern that is wrong or misses a file is refused before anything is sent."""
    result = command("cases", "add", scans, "--group-from", pattern)
    assert (2, {}) == (result.exit_code, world.volumes)
    assert message in result.stderr


def test_folder_without_scans_is_refused(command: Command, project: Project, tmp_path: Path) -> None:
    """An empty folder is named."""
    result = command("cases", "add", tmp_path)
    assert 2 == result.exit_code
    assert "holds no images" in result.stderr


def test_cases_are_listed_and_filtered(command: Command, project: Project, ready_case: str) -> None:
    """The table shows state and expected minutes; --state filters."""
    project.add_case(b"another scan")
    table = command("cases", "list").stdout
    assert "2 cases" in table
    assert "6.5" in table
    found = json.loads(command("cases", "list", "--state", "ready", "--json").stdout)
    assert [(ready_case, "ready", 6.5, "P1")] == [
        (case["id"], case["state"], case["predicted_minutes"], case["group_key"]) for case in found
    ]


def test_case_is_marked(command: Command, ready_case: str, world: World) -> None:
    """A mark arrives; an unknown case is not found; an unknown mark is wrong input."""
    results = [
        command("cases", "mark", ready_case, "put-off"),
        command("cases", "mark", "case-9", "easy"),
        command("cases", "mark", ready_case, "nice"),
    ]
    assert [0, 3, 2] == [result.exit_code for result in results]
    assert records.CASE_MARK_PUT_OFF == world.cases[ready_case].mark


def test_seeds_are_added_in_pairs(command: Command, project: Project, tmp_path: Path, world: World) -> None:
    """Images go with the labels of the same name; an image without a label is named and nothing is sent."""
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
        (tmp_path / part / "s1.nii.gz").write_bytes(part.encode())
    (tmp_path / "images" / "s2.nii.gz").write_bytes(b"lonely")
    refused = command("seeds", "add", tmp_path, "--modality", "CT")
    assert 2 == refused.exit_code
    assert "s2.nii.gz" in refused.stderr
    assert {} == world.volumes
    (tmp_path / "images" / "s2.nii.gz").unlink()
    assert 0 == command("seeds", "add", tmp_path, "--modality", "CT", "--not-reviewed", "spleen").exit_code
    (request,) = world.requests("AddSeedCase")
    assert ["spleen"] == list(request.not_reviewed_organ_ids)
    assert ["CT"] == [seed["modality"] for seed in json.loads(command("seeds", "list", "--json").stdout)]


def test_models_are_imported_listed_and_activated(
    command: Command, project: Project, tmp_path: Path, world: World
) -> None:
    """A version is chosen by number; the current one is what the service is asked to replace."""
    (tmp_path / "manifest.json").write_text("{}")
    assert 3 == command("models", "import", tmp_path).exit_code
    (tmp_path / "model.onnx").write_bytes(b"onnx")
    for _ in range(2):
        assert 0 == command("models", "import", tmp_path).exit_code
    results = [command("models", "activate", version) for version in ("2", "1", "9")]
    assert [0, 0, 3] == [result.exit_code for result in results]
    assert ["", "model-2"] == [request.expected_current for request in world.requests("ActivateModel")]
    listed = json.loads(command("models", "list", "--json").stdout)
    assert [(2, False), (1, True)] == [(model["version"], model["active"]) for model in listed]
    assert "model-1" in command("models", "list").stdout
    assert inference.MODEL_ROLE_IGNITER == world.models["model-1"].role


def test_runs_are_listed_watched_and_cancelled(command: Command, project: Project, world: World) -> None:
    """The newest run is followed to its end; JSON comes one line at a time."""
    assert 3 == command("runs", "watch").exit_code
    for run_id, state in (("r1", trainer.RUN_STATE_FAILED), ("r2", trainer.RUN_STATE_SUCCEEDED)):
        world.runs[run_id] = trainer.Run(run_id=run_id, project_id=project.id, state=state, reason="why")
    world.metrics = [trainer.Metric(cursor=1, phase="train", step=5, steps=10, epoch=1, epochs=2, loss=0.5)]
    assert "train  epoch 1/2  step 5/10  loss 0.500" in command("runs", "watch").stdout
    lines = [json.loads(line) for line in command("runs", "watch", "--json").stdout.splitlines()]
    assert (5, "r2", "succeeded") == (lines[0]["step"], lines[1]["id"], lines[1]["state"])
    assert "failed" in command("runs", "list").stdout
    assert ["r2", "r1"] == [run["id"] for run in json.loads(command("runs", "list", "--json").stdout)]
    assert "Run r1 is cancelled.\n" == command("runs", "cancel", "r1").stdout
    assert 3 == command("runs", "cancel", "r9").exit_code


def test_rounds_are_listed_with_their_decision(command: Command, project: Project, world: World) -> None:
    """The table says which model serves and why."""
    decision = records.PromotionDecision(promoted=False, reason="spleen is worse by 0.05")
    world.rounds = [records.Round(number=1, state=records.ROUND_STATE_CLOSED, decision=decision, minutes=12.5)]
    table = command("rounds", "list").stdout
    assert "refused" in table
    assert "spleen is worse by 0.05" in table
    (listed,) = json.loads(command("rounds", "list", "--json").stdout)
    assert (1, "closed", False, 12.5) == (
        listed["number"],
        listed["state"],
        listed["promoted"],
        listed["minutes"],
    )


def test_rounds_are_watched_to_the_end(command: Command, project: Project, world: World) -> None:
    """Events come as lines and end with the project; --after leaves out what was seen."""
    kinds = ("round-opened", "project-complete", "never-shown")
    world.events = [
        records.RoundEvent(cursor=n, kind=kind, message=f"{kind}!", round=1) for n, kind in enumerate(kinds, 1)
    ]
    assert "round 1: round-opened!\nround 1: project-complete!\n" == command("rounds", "watch").stdout
    lines = command("rounds", "watch", "--after", "1", "--json").stdout.splitlines()
    assert [2] == [json.loads(line)["cursor"] for line in lines]


def test_training_needs_a_label(command: Command, project: Project) -> None:
    """`train-now` without a new correction is a conflict, told in the service's words."""
    result = command("rounds", "train-now")
    assert 4 == result.exit_code
    assert "correct at least one scan" in result.stderr


def test_report_sums_up(command: Command, project: Project, world: World) -> None:
    """Minutes are shown with their source."""
    world.rounds = [records.Round(number=1)]
    assert "0.0 minutes in all" in command("report").stdout
    report = json.loads(command("report", "--json").stdout)
    assert ({"project", "rounds", "ledger"}, project.id) == (set(report), report["project"]["id"])


def test_scan_is_segmented_into_a_file(command: Command, project: Project, tmp_path: Path) -> None:
    """The mask is written; the table shows volumes; a name that is no NIfTI name is refused."""
    scan, mask = tmp_path / "scan.nii.gz", tmp_path / "out" / "mask.nii.gz"
    scan.write_bytes(b"abc")
    result = command("segment", scan, "-o", mask)
    assert (0, b"cba") == (result.exit_code, mask.read_bytes())
    assert "1500.0" in result.stdout
    assert "0.900" in result.stdout
    assert "model-1" == json.loads(command("segment", scan, "-o", mask, "--json").stdout)["model_version_id"]
    assert 2 == command("segment", scan, "-o", tmp_path / "mask.png").exit_code
    assert 2 == command("segment", tmp_path / "gone.nii.gz", "-o", mask).exit_code


def test_scans_can_be_listed_by_every_state_that_there_is() -> None:
    """Also those that wait for a reviewer or were erased."""
    known = {name.removeprefix("CASE_STATE_").lower().replace("_", "-") for name, _ in records.CaseState.items()}
    assert known - {"unspecified"} == set(STATES)
