"""Which durable segmentation goes first, waits, expires, and goes on in the next process."""

import hashlib
import threading

import grpc
from google.protobuf.duration_pb2 import Duration
from hooked_engine import Holding
from refusals import refused_with
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import segmentations_pb2 as messages
from segmenting import BATCH, EXPIRED, STAT, SUCCEEDED, volume


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
    code, error = refused_with(lambda: running.create(image))
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
