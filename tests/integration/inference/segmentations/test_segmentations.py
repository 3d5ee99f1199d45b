"""Durable segmentations over gRPC: asked for once, done once, watched to their end."""

import uuid
from datetime import timedelta

import grpc
import numpy as np
import pytest
import SimpleITK as sitk
from hooked_engine import Holding
from refusals import refused_with
from rekindle.api.inference.v1 import segmentations_pb2 as messages
from rekindle.errors import DependencyUnavailable
from rekindle_inference.domain import segmentations as domain
from segmenting import CANCELLED, FAILED, QUEUED, STAT, SUCCEEDED, volume


@pytest.fixture
def short_pause(monkeypatch):
    monkeypatch.setattr(domain, "RETRY_AFTER", timedelta(seconds=0.05))


def test_segments_a_registered_image(active, phantom, tmp_path):
    """It ends with a result whose mask is the phantom's organs, and says which version made it of what."""
    image = active.upload(phantom.file(tmp_path), source={"series_instance_uid": "1.2.3"}).volume
    asked = active.create(image.volume_id, priority=STAT)
    done = active.ended(asked)
    result = active.result(done.result_id)
    _, mask = active.download(result.mask_volume_id, tmp_path)
    assert (QUEUED, SUCCEEDED) == (asked.state, done.state)
    assert np.array_equal(phantom.mask, sitk.GetArrayFromImage(mask))
    assert (STAT, 12, 12, 0) == (done.priority, done.slices_done, done.slices_total, done.queue_position)
    assert done.model_version_id == result.model_version_id != ""
    assert (image.volume_id, done.segmentation_id) == (result.volume_id, result.segmentation_id)
    assert (messages.RESULT_ORIGIN_MODEL, "1.2.3") == (result.origin, result.source.series_instance_uid)
    assert ["liver", "spleen"] == [quality.organ_id for quality in result.quality]
    assert done.create_time.ToDatetime() <= done.start_time.ToDatetime() <= done.end_time.ToDatetime()


def test_the_same_request_is_one_segmentation(active, phantom, tmp_path):
    """A retry is answered with the first; another request under its id is refused."""
    image = volume(active, phantom, tmp_path)
    request_id = uuid.uuid4().hex
    first = active.create(image, request_id=request_id)
    again = active.create(image, request_id=request_id)
    code, error = refused_with(lambda: active.create(image, request_id=request_id, priority=STAT))
    assert first.segmentation_id == again.segmentation_id
    assert (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED") == (code, error.reason)


def test_what_was_predicted_before_is_not_predicted_again(active, engine, phantom, tmp_path):
    """The second segmentation of an image with the same version asks the engine for nothing."""
    image = volume(active, phantom, tmp_path)
    first = active.ended(active.create(image))
    batches = list(engine.batches)
    second = active.ended(active.create(image))
    results = [active.result(each.result_id) for each in (first, second)]
    assert [5, 5, 2] == batches == engine.batches
    assert results[0].mask_volume_id == results[1].mask_volume_id
    assert results[0].result_id == results[1].supersedes_result_id


def test_cancels_what_is_queued_and_what_runs(active, engine, phantom, tmp_path):
    """The engine is given no further slices, no result is made, and cancelling again changes nothing."""
    engine.hook = held = Holding(slices=5)
    running = active.create(volume(active, phantom, tmp_path))
    held.wait_until_held()
    cancelled = active.cancel(running)
    held.let_go()
    again = active.cancel(running)
    assert CANCELLED == cancelled.state == again.state == active.ended(running).state
    # A later segmentation shows that the worker is free again, and that nothing of the first has come after it.
    later = active.ended(active.create(volume(active, phantom, tmp_path, slices=4)))
    assert [1] == [result.cursor for result in active.feed(1)]
    assert later.result_id == active.feed(1)[0].result_id
    assert [5, 4] == engine.batches


def test_what_has_ended_cannot_be_cancelled(active, phantom, tmp_path):
    """FAILED_PRECONDITION says how it has ended."""
    done = active.ended(active.create(volume(active, phantom, tmp_path)))
    code, error = refused_with(lambda: active.cancel(done))
    assert (grpc.StatusCode.FAILED_PRECONDITION, "SEGMENTATION_ENDED") == (code, error.reason)
    assert "succeeded" in error.message


def test_a_dropped_watch_is_taken_up_after_its_cursor(active, engine, phantom, tmp_path):
    """Hanging up ends nothing; watching again after the cursor tells what is new, to the end."""
    engine.hook = held = Holding(slices=2)
    asked = active.create(volume(active, phantom, tmp_path))
    call = active.watch(asked)
    first = next(call)
    held.wait_until_held()
    call.cancel()
    held.let_go()
    rest = list(active.watch(asked, after=first.cursor))
    cursors = [answer.cursor for answer in rest]
    assert SUCCEEDED == rest[-1].segmentation.state
    assert first.cursor < cursors[0]
    assert sorted(set(cursors)) == cursors
    # Whoever comes late, or has heard of the end, is told the end.
    assert [rest[-1]] == list(active.watch(asked, after=cursors[-1]))


def test_progress_is_told_while_it_runs(active, engine, phantom, tmp_path):
    """A watcher sees the slices that are done before the last batch ends."""
    engine.hook = held = Holding(slices=2)
    asked = active.create(volume(active, phantom, tmp_path))
    seen = [(0, 0)]
    for answer in active.watch(asked):
        seen.append((answer.segmentation.slices_done, answer.segmentation.slices_total))
        if seen[-1] == (10, 12):
            held.let_go()
    assert (10, 12) in seen
    assert (12, 12) == seen[-1]


def test_waits_for_what_is_away(active, engine, phantom, tmp_path, short_pause):
    """A dependency that is away costs no attempt: it is tried again until it is there."""
    failures = iter([DependencyUnavailable("the model server cannot be reached")] * 2)

    def hook(_):
        for failure in failures:
            raise failure

    engine.hook = hook
    asked = active.create(volume(active, phantom, tmp_path))
    told = [answer.segmentation.reason for answer in active.watch(asked)]
    assert SUCCEEDED == active.get(asked).state
    assert any("the model server cannot be reached" in reason for reason in told)
    assert "" == told[-1]


def test_an_unforeseen_failure_is_tried_three_times(active, engine, phantom, tmp_path, short_pause, caplog):
    """Then it has failed; what is told names the incident in the log and nothing else."""

    def hook(_):
        raise RuntimeError("secret")

    engine.hook = hook
    failed = active.ended(active.create(volume(active, phantom, tmp_path)))
    incident = failed.reason.rpartition(" ")[2]
    assert (FAILED, "INTERNAL_ERROR") == (failed.state, failed.failure_reason)
    assert incident in caplog.text
    assert "secret" not in failed.reason
    assert 3 == len(engine.batches)


def test_lists_newest_first_by_state_and_volume(active, phantom, tmp_path):
    """Pages follow each other without gaps; the filters hold together."""
    images = [volume(active, phantom, tmp_path), volume(active, phantom, tmp_path, slices=9)]
    made = [active.ended(active.create(images[index])) for index in (0, 1, 0)]
    request = messages.ListSegmentationsRequest(project_id="project-a", page_size=2)
    first = active.segmentations.ListSegmentations(request, timeout=10)
    request.page_token = first.next_page_token
    second = active.segmentations.ListSegmentations(request, timeout=10)
    filtered = active.segmentations.ListSegmentations(
        messages.ListSegmentationsRequest(project_id="project-a", states=[SUCCEEDED], volume_id=images[0]), timeout=10
    )
    none = active.segmentations.ListSegmentations(
        messages.ListSegmentationsRequest(project_id="project-a", states=[FAILED]), timeout=10
    )
    assert made[::-1] == [*first.segmentations, *second.segmentations]
    assert ("", [made[2], made[0]], []) == (
        second.next_page_token,
        list(filtered.segmentations),
        list(none.segmentations),
    )
