"""Durable segmentations over gRPC: asked for once, done once, in the order of their priority."""

import threading
import uuid
from datetime import timedelta

import grpc
import numpy as np
import pytest
import SimpleITK as sitk
from google.protobuf.duration_pb2 import Duration
from hooked_engine import Holding, HookedEngine
from rekindle._status import error_from_rpc
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import segmentations_pb2 as messages
from rekindle.errors import DependencyUnavailable
from rekindle_inference.domain import segmentations as domain

STAT, ROUTINE, BATCH = inference.PRIORITY_STAT, inference.PRIORITY_ROUTINE, inference.PRIORITY_BATCH
QUEUED, RUNNING = messages.SEGMENTATION_STATE_QUEUED, messages.SEGMENTATION_STATE_RUNNING
SUCCEEDED, FAILED = messages.SEGMENTATION_STATE_SUCCEEDED, messages.SEGMENTATION_STATE_FAILED
CANCELLED, EXPIRED = messages.SEGMENTATION_STATE_CANCELLED, messages.SEGMENTATION_STATE_EXPIRED


def error_of(call):
    """The error that a call must fail with, and its status."""
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value.code(), error_from_rpc(caught.value)


def volume(running, phantom, folder, slices=12):
    """The id of an image of the phantom's first slices."""
    return running.upload(phantom.file(folder, voxels=phantom.image[:slices])).volume.volume_id


@pytest.fixture
def engine(settings):
    return HookedEngine(settings.objects_directory)


@pytest.fixture
def active(start, engine, package):
    """A running service whose project has an active model."""
    running = start(engine)
    running.activate(running.register(running.upload_package(*package)))
    engine.batches.clear()
    return running


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
    code, error = error_of(lambda: active.create(image, request_id=request_id, priority=STAT))
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


def test_stat_overtakes_a_running_batch_at_its_next_slice_batch(active, engine, phantom, tmp_path):
    """All slices of the STAT volume come between two slice batches of the BATCH volume."""
    large, small = volume(active, phantom, tmp_path), volume(active, phantom, tmp_path, slices=9)
    engine.hook = first = Holding(slices=5)
    batch = active.create(large, priority=BATCH)
    first.wait_until_held()
    # Lets the batch go only once the engine has the first slices of the STAT volume.
    stat_seen = threading.Event()

    def hook(_):
        stat_seen.set()
        first.let_go()

    engine.hook = hook
    stat = active.ended(active.create(small, priority=STAT))
    assert stat_seen.is_set()
    assert (SUCCEEDED, SUCCEEDED) == (stat.state, active.ended(batch).state)
    # 12 slices are 5 + 5 + 2, 9 are 5 + 4.
    assert [5, 5, 4, 5, 2] == engine.batches


def test_a_streamed_stat_overtakes_predictions_of_the_loop(active, engine, phantom, tmp_path):
    """PredictVolumes is BATCH work, and a streamed segmentation has the priority of its header."""
    import hashlib

    from rekindle.api.common.v1 import common_pb2 as common

    large, small = volume(active, phantom, tmp_path), phantom.file(tmp_path, voxels=phantom.image[:9]).read_bytes()
    engine.hook = first = Holding(slices=5)
    predicted = []
    predicting = threading.Thread(target=lambda: predicted.extend(active.predict(large)))
    predicting.start()
    first.wait_until_held()
    engine.hook = lambda _: first.let_go()
    header = inference.SegmentHeader(
        project_id="project-a",
        model=inference.ModelSelector(active=True),
        format=common.FILE_FORMAT_NIFTI,
        sha256=hashlib.sha256(small).hexdigest(),
        priority=STAT,
    )
    parts = [inference.SegmentRequest(header=header), inference.SegmentRequest(chunk=small)]
    answers = list(active.inference.Segment(iter(parts), timeout=60))
    predicting.join(60)
    assert answers[-1].chunk
    assert predicted[0].HasField("prediction")
    assert [5, 5, 4, 5, 2] == engine.batches


def test_the_queue_is_worked_off_by_priority(start, engine, package, phantom, tmp_path):
    """With one worker of each kind, positions count those of the same priority, and the older goes first."""
    running = start(engine, changes={"segmentation_workers": 1})
    running.activate(running.register(running.upload_package(*package)))
    image = volume(running, phantom, tmp_path)
    engine.hook = held = Holding(slices=5)
    first = running.create(image)
    held.wait_until_held()
    waiting = [running.create(image), running.create(image), running.create(image, priority=BATCH)]
    positions = [running.get(each).queue_position for each in waiting]
    held.let_go()
    ends = [running.ended(each).end_time.ToDatetime() for each in (first, *waiting[:2])]
    assert [1, 2] == positions[:2]
    assert sorted(ends) == ends


def test_a_full_queue_says_when_to_try_again(start, engine, package, phantom, tmp_path):
    """RESOURCE_EXHAUSTED with RetryInfo; another priority has a queue of its own, and nothing was stored."""
    running = start(engine, changes={"segmentation_workers": 1, "segmentation_queue_most": 1})
    running.activate(running.register(running.upload_package(*package)))
    image = volume(running, phantom, tmp_path)
    engine.hook = held = Holding(slices=5)
    running.create(image)
    held.wait_until_held()
    running.create(image)
    code, error = error_of(lambda: running.create(image))
    urgent = running.create(image, priority=STAT)
    listed = running.segmentations.ListSegmentations(
        messages.ListSegmentationsRequest(project_id="project-a"), timeout=10
    ).segmentations
    held.let_go()
    assert (grpc.StatusCode.RESOURCE_EXHAUSTED, "QUEUE_FULL") == (code, error.reason)
    assert 10.0 == error.retry_after_s
    assert 3 == len(listed)
    assert SUCCEEDED == running.ended(urgent).state


def test_expires_without_work(start, engine, package, phantom, tmp_path):
    """What no worker was free for in its time to live is not begun any more."""
    running = start(engine, changes={"segmentation_workers": 1})
    running.activate(running.register(running.upload_package(*package)))
    images = [volume(running, phantom, tmp_path), volume(running, phantom, tmp_path, slices=4)]
    engine.hook = held = Holding(slices=5)
    running.create(images[0])
    held.wait_until_held()
    late = running.ended(running.create(images[1], time_to_live=Duration(nanos=1_000_000)))
    held.let_go()
    assert (EXPIRED, "") == (late.state, late.result_id)
    assert not late.HasField("start_time")
    assert 4 not in engine.batches


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
    code, error = error_of(lambda: active.cancel(done))
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


def test_the_version_is_the_one_that_was_active_when_work_began(start, engine, package, phantom, tmp_path):
    """A version that becomes active while it is queued predicts it; one that was named stays."""
    running = start(engine, changes={"segmentation_workers": 1})
    digest = running.upload_package(*package)
    old = running.register(digest)
    new = running.register(digest, role=inference.MODEL_ROLE_SUSTAINER)
    running.activate(old)
    image = volume(running, phantom, tmp_path)
    engine.hook = held = Holding(slices=5)
    first = running.create(image)
    held.wait_until_held()
    moving = running.create(image)
    named = running.create(image, model=inference.ModelSelector(model_version_id=old.model_version_id))
    running.activate(new, expected=old.model_version_id)
    held.let_go()
    versions = [running.ended(each).model_version_id for each in (first, moving, named)]
    assert [old.model_version_id, new.model_version_id, old.model_version_id] == versions


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


def test_goes_back_into_the_queue_when_the_service_ends(start, engine, package, phantom, tmp_path):
    """An orderly end costs no attempt and no waiting: the next process takes it up at once, with the same version."""
    running = start(engine)
    running.activate(running.register(running.upload_package(*package)))
    engine.hook = held = Holding(slices=5)
    asked = running.create(volume(running, phantom, tmp_path))
    held.wait_until_held()
    threading.Timer(0.3, held.let_go).start()
    start.stop(running)
    again = start()
    done = again.ended(asked)
    assert SUCCEEDED == done.state
    assert [done.result_id] == [result.result_id for result in again.feed(1)]


BAD_REQUESTS = {
    "no project": ({"project_id": ""}, "INVALID_INPUT"),
    "a path as project": ({"project_id": "../../etc"}, "INVALID_INPUT"),
    "no volume": ({"volume_id": ""}, "VOLUME_NOT_FOUND"),
    "a volume that is not there": ({"volume_id": "' OR 1=1 --"}, "VOLUME_NOT_FOUND"),
    "a volume's id with a null": ({"volume_id": "a\0b"}, "VOLUME_NOT_FOUND"),
    "an endless volume id": ({"volume_id": "x" * 100_000}, "VOLUME_NOT_FOUND"),
    "another project's volume": ({"project_id": "project-b"}, "VOLUME_NOT_FOUND"),
    "no model": ({"model": inference.ModelSelector()}, "INVALID_INPUT"),
    "a model that is not there": ({"model": inference.ModelSelector(model_version_id="none")}, "MODEL_NOT_FOUND"),
    "no request id": ({"request_id": ""}, "INVALID_INPUT"),
    "an unknown priority": ({"priority": 77}, "INVALID_INPUT"),
    "no time to live": ({"time_to_live": Duration()}, "INVALID_INPUT"),
    "a negative time to live": ({"time_to_live": Duration(seconds=-1)}, "INVALID_INPUT"),
    "too long a time to live": ({"time_to_live": Duration(seconds=8 * 86400)}, "INVALID_INPUT"),
    "an absurd time to live": ({"time_to_live": Duration(seconds=2**62)}, "INVALID_INPUT"),
}


def test_refuses_what_cannot_be_segmented(active, phantom, tmp_path):
    """A typed error for each, and nothing in the queue."""
    image = volume(active, phantom, tmp_path, slices=2)
    found = {
        name: error_of(lambda fields=fields: active.create(**{"volume_id": image, **fields}))[1].reason
        for name, (fields, _) in BAD_REQUESTS.items()
    }
    listed = active.segmentations.ListSegmentations(
        messages.ListSegmentationsRequest(project_id="project-a"), timeout=10
    ).segmentations
    assert {name: reason for name, (_, reason) in BAD_REQUESTS.items()} == found
    assert 0 == len(listed)


def test_refuses_masks_other_modalities_and_projects_without_a_model(active, phantom, tmp_path):
    """What the model could not make sense of is refused before it is queued."""
    from rekindle.api.common.v1 import common_pb2 as common

    image = volume(active, phantom, tmp_path)
    mask = active.upload_mask(phantom.file(tmp_path, "mask"), image).volume.volume_id
    magnetic = active.upload(phantom.file(tmp_path), modality=common.MODALITY_MR).volume.volume_id
    elsewhere = active.upload(phantom.file(tmp_path), project_id="project-c").volume.volume_id
    found = [
        error_of(lambda: active.create(mask)),
        error_of(lambda: active.create(magnetic)),
        error_of(lambda: active.create(elsewhere, project_id="project-c")),
    ]
    assert [
        (grpc.StatusCode.INVALID_ARGUMENT, "NOT_AN_IMAGE"),
        (grpc.StatusCode.INVALID_ARGUMENT, "MODALITY_MISMATCH"),
        (grpc.StatusCode.FAILED_PRECONDITION, "MODEL_NOT_READY"),
    ] == [(code, error.reason) for code, error in found]


def test_unknown_segmentations_are_not_found(active):
    """By get, cancel and watch alike, whatever is sent as an id."""
    for segmentation_id in ["", "none", "../x", "a\0b", "x" * 100_000]:
        asked = messages.Segmentation(segmentation_id=segmentation_id)
        calls = [active.get, active.cancel, lambda each: list(active.watch(each))]
        found = [error_of(lambda call=call, asked=asked: call(asked))[1].reason for call in calls]
        assert ["SEGMENTATION_NOT_FOUND"] * 3 == found


def test_refuses_wrong_cursors_pages_and_states(active, phantom, tmp_path):
    """Each names its field."""
    asked = active.create(volume(active, phantom, tmp_path, slices=2))
    listing = active.segmentations.ListSegmentations
    calls = {
        "after_cursor": lambda: list(active.watch(asked, after=-1)),
        "page_token": lambda: listing(
            messages.ListSegmentationsRequest(project_id="project-a", page_token="x"), timeout=9
        ),
        "page_size": lambda: listing(
            messages.ListSegmentationsRequest(project_id="project-a", page_size=-1), timeout=9
        ),
        "states": lambda: listing(messages.ListSegmentationsRequest(project_id="project-a", states=[99]), timeout=9),
    }
    assert list(calls) == [error_of(call)[1].violations[0].field for call in calls.values()]
