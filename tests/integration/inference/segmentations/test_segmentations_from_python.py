"""Durable segmentations and results through the SDK, against the real service."""

import json
import threading

import pytest
from click.testing import CliRunner
from hooked_engine import Holding
from rekindle._call import Retry
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.cli.commands import rekindle
from rekindle.cli.session import Session
from rekindle.client import Client
from rekindle.errors import DeadlineExceeded, IllegalTransition, InvalidInput
from rekindle.mirror import ResultFolder
from rekindle.projects import Project
from rekindle.results import QualityLimit


def handle(running):
    """The project as the SDK sees it; only inference is there."""
    address = running.service.server.address
    client = Client.connect(address, inference=address, retry=Retry(attempts=3, first_wait_s=0.05))
    organs = [common.Organ(id="liver", label_value=6), common.Organ(id="spleen", label_value=1)]
    record = records.Project(project_id="project-a", organs=organs, target_modality=common.MODALITY_CT)
    return Project(client._services, record)


@pytest.fixture
def project(active):
    project = handle(active)
    yield project
    project._services.close()


def test_segments_a_file_and_waits_for_its_mask(project, phantom, tmp_path):
    """Uploaded, segmented, downloaded: the phantom's organs, with progress on the way."""
    asked = project.segment(phantom.file(tmp_path), priority="stat")
    seen = [change.state for change in asked.watch()]
    result = asked.result()
    assert ("stat", "succeeded", "succeeded") == (asked.priority, asked.state, seen[-1])
    assert (phantom.mask == result.mask().array()).all()
    assert ("model", asked.volume_id, ()) == (result.origin, result.volume_id, result.abstentions)
    assert [asked.id] == [each.id for each in project.segmentations(states=["succeeded"])]


def test_cancels_and_says_that_there_is_no_result(project, engine, phantom, tmp_path):
    """Asking for the result of what was cancelled is an error that says so."""
    engine.hook = held = Holding(slices=5)
    asked = project.segment(phantom.file(tmp_path))
    held.wait_until_held()
    with pytest.raises(DeadlineExceeded, match="running"):
        asked.wait(timeout_s=0.2)
    assert "cancelled" == project.segmentation(asked.id).cancel().state
    held.let_go()
    with pytest.raises(IllegalTransition, match="cancelled"):
        asked.result()


def test_the_feed_survives_a_restart_of_the_service(start, settings, active, engine, phantom, tmp_path):
    """An iterator that was waiting goes on with what a new process publishes, and repeats nothing."""
    project = handle(active)
    volume = project.upload_image(phantom.file(tmp_path))
    project.segment(volume).wait()
    feed = project.results()
    first = next(feed)
    port = int(active.service.server.address.rpartition(":")[2])
    found = []
    waiting = threading.Thread(target=lambda: found.append(next(feed)))
    waiting.start()
    start.stop(active)
    again = start(engine, changes={"address": f"127.0.0.1:{port}"})
    again.create(volume)
    waiting.join(60)
    project._services.close()
    assert [first.cursor + 1] == [result.cursor for result in found]
    assert first.id == found[0].supersedes


def test_a_folder_follows_the_results(active, project, phantom, tmp_path):
    """The model's mask, then the correction in its place, then nothing once it was taken back; from a cursor on."""
    folder = tmp_path / "archive"
    volume = project.upload_image(phantom.file(tmp_path))
    project.segment(volume).wait()
    mask = project.upload_mask(phantom.file(tmp_path, "mask"), image_volume_id=volume).mask_volume_id
    feed = project.results()
    path = ResultFolder(folder).keep(next(feed))
    of_model = path.read_bytes()
    project.publish_result(mask, submission_id="s1")
    project.segment(volume).wait()
    followed = [ResultFolder(folder).keep(next(feed)) for _ in range(2)]
    corrected = json.loads((folder / f"{volume}.json").read_text())
    again = ResultFolder(folder).keep(next(project.results(after=1)))
    project.publish_result(mask, submission_id="s1", retracted=True)
    ResultFolder(folder).keep(next(feed))
    assert [path, None] == followed
    assert (path, "corrected", "s1") == (again, corrected["origin"], corrected["submission_id"])
    assert of_model
    assert not path.exists()
    assert 4 == ResultFolder(folder).cursor
    assert {f"{volume}.json", "cursor"} == {each.name for each in folder.iterdir()}


def test_limits_leave_organs_out(project, phantom, tmp_path):
    """Set by numbers or in full, read back, and named in the result; a wrong one names its field."""
    limits = project.set_quality_limits({"liver": 1.0, "spleen": QualityLimit(least=0.0)})
    result = project.segment(phantom.file(tmp_path)).result()
    with pytest.raises(InvalidInput) as refused:
        project.set_quality_limits({"liver": 7})
    assert limits == project.quality_limits()
    assert [("liver", "low-confidence")] == [(each.organ_id, each.reason) for each in result.abstentions]
    assert {0, 1} == set(result.mask().array().ravel().tolist())
    assert "limits[0].min_soft_dice_confidence" == refused.value.violations[0].field


def test_following_ends_when_it_was_asked_to(project):
    """A time limit ends the feed with an error that says so."""
    with pytest.raises(DeadlineExceeded):
        next(project.results(timeout_s=0.2))


@pytest.fixture
def command(active, project, monkeypatch):
    """Runs `rekindle` with arguments on the project: what it printed."""
    address = active.service.server.address
    for name in ("ADDRESS", "INFERENCE"):
        monkeypatch.setenv(f"REKINDLE_{name}", address)
    monkeypatch.setattr(Session, "project", lambda self: project)

    def run(*arguments):
        result = CliRunner().invoke(rekindle, [str(argument) for argument in arguments])
        assert 0 == result.exit_code, result.output
        return result.stdout

    return run


def test_commands_segment_durably_and_follow_results(command, project, phantom, tmp_path):
    """The mask is written, the segmentation and its result can be listed, and a folder follows the feed."""
    scan, out = phantom.file(tmp_path), tmp_path / "mask.nii.gz"
    command("segment", scan, "-o", out, "--durable", "--priority", "stat")
    (listed,) = json.loads(command("segmentations", "list", "--json"))
    shown = json.loads(command("segmentations", "show", listed["id"], "--json"))
    watched = command("segmentations", "watch", listed["id"])
    (result,) = json.loads(command("results", "list", listed["volume_id"], "--json"))
    told = command("results", "watch", "--save", tmp_path / "archive", "--timeout", 0.02)
    assert out.read_bytes() == (tmp_path / "archive" / f"{listed['volume_id']}.nii.gz").read_bytes()
    assert ("stat", "succeeded") == (listed["priority"], listed["state"])
    assert shown == listed
    assert "succeeded" in watched
    assert result["id"] == listed["result_id"]
    assert "saved as" in told
    # The folder knows how far it is.
    assert "" == command("results", "watch", "--save", tmp_path / "archive", "--timeout", 0.01)


def test_commands_set_limits_that_hold_for_a_streamed_scan(command, phantom, tmp_path):
    """What was left out is said beside the table."""
    command("limits", "set", "liver=1.0", "--must-find", "spleen")
    shown = json.loads(command("limits", "show", "--json"))
    told = command("segment", phantom.file(tmp_path), "-o", tmp_path / "mask.nii.gz")
    assert {"liver": (1.0, False), "spleen": (0.0, True)} == {
        organ: (limit["least"], limit["abstain_when_nothing_found"]) for organ, limit in shown.items()
    }
    assert "without liver" in " ".join(told.split())


def test_command_cancels(command, project, engine, phantom, tmp_path):
    """By its id."""
    engine.hook = held = Holding(slices=5)
    asked = project.segment(phantom.file(tmp_path))
    held.wait_until_held()
    assert "cancelled" in command("segmentations", "cancel", asked.id)
    held.let_go()
