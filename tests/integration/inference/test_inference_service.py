"""The service over gRPC: volumes in and out, receipts, predictions, streamed segmentation."""

import asyncio
import hashlib
import threading
import time
import uuid

import grpc
import numpy as np
import pytest
import SimpleITK as sitk
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle_imaging import canonical
from rekindle_inference.adapters.onnxruntime import OnnxRuntimeEngine
from rekindle_servicekit.database import write
from rekindle_servicekit.objects import DirectoryObjects


def segment_requests(path, chunk_bytes=1024):
    """A header for the active model, then the file in chunks."""
    data = path.read_bytes()
    header = inference.SegmentHeader(
        project_id="project-a",
        model=inference.ModelSelector(active=True),
        format=common.FILE_FORMAT_NIFTI,
        sha256=hashlib.sha256(data).hexdigest(),
    )
    yield inference.SegmentRequest(header=header)
    for first in range(0, len(data), chunk_bytes):
        yield inference.SegmentRequest(chunk=data[first : first + chunk_bytes])


def test_predicts_a_registered_volume(active, phantom, tmp_path):
    """A prediction is the phantom's organs, voxel by voxel, in the project's label values."""
    image = active.upload(phantom.file(tmp_path)).volume
    (answer,) = active.predict(image.volume_id)
    header, mask = active.download(answer.prediction.mask_volume_id, tmp_path)
    assert answer.volume_id == image.volume_id
    assert np.array_equal(phantom.mask, sitk.GetArrayFromImage(mask))
    assert answer.prediction.mask_digest == header.volume.canonical_digest
    assert image.volume_id == header.volume.image_volume_id


def test_prediction_says_how_sure_it_is(active, phantom, tmp_path):
    """Quality has the predicted volume and slices of each organ, and minutes follow from it."""
    image = active.upload(phantom.file(tmp_path)).volume
    (answer,) = active.predict(image.volume_id)
    liver, spleen = answer.prediction.quality
    assert ["liver", "spleen"] == [liver.organ_id, spleen.organ_id]
    assert pytest.approx(8 * 12 * 10 * 0.08) == liver.predicted_ml
    assert (8, 5) == (liver.slices, spleen.slices)
    assert (1, 1) == (liver.components, spleen.components)
    assert 0.5 < liver.soft_dice_confidence <= 1
    # Reading 12 slices at half a second is the least that it can cost.
    assert 0.1 < answer.prediction.predicted_minutes < 5


def test_an_organ_that_is_not_found_has_no_confidence(active, phantom, tmp_path):
    """Nothing predicted leaves the confidence unset, and costs more minutes than a label to correct."""
    without_spleen = np.where(phantom.mask == 1, 0, phantom.image).astype(np.int16)
    one, both = (
        active.upload(phantom.file(tmp_path, voxels=voxels)).volume.volume_id
        for voxels in (without_spleen, phantom.image)
    )
    lacking, complete = (answer.prediction for answer in active.predict(one, both))
    spleen = lacking.quality[1]
    assert (False, 0, 0) == (spleen.HasField("soft_dice_confidence"), spleen.slices, spleen.predicted_ml)
    assert lacking.predicted_minutes > complete.predicted_minutes


def test_lost_voxels_are_told_per_volume(active, phantom, tmp_path):
    """A canonical object that is damaged or gone is an integrity failure of that volume alone."""
    volumes_ = [active.upload(phantom.file(tmp_path, voxels=phantom.image + shift)).volume for shift in range(3)]
    paths = [active.objects_directory / "canonical" / volume.canonical_digest for volume in volumes_]
    paths[0].write_bytes(paths[0].read_bytes()[:-1] + b"\0")
    paths[1].unlink()
    answers = active.predict(*(volume.volume_id for volume in volumes_))
    assert ["DIGEST_MISMATCH", "OBJECT_MISSING", ""] == [answer.failure.reason for answer in answers]


def test_prediction_of_the_same_volume_is_made_once(active, phantom, tmp_path):
    """Asking again answers from the store."""
    image = active.upload(phantom.file(tmp_path)).volume
    first, second = active.predict(image.volume_id), active.predict(image.volume_id)
    assert first == second


def test_one_bad_volume_does_not_stop_the_others(active, phantom, tmp_path):
    """Failures are answered per volume, with their reasons, in the order of the request."""
    image = active.upload(phantom.file(tmp_path)).volume
    of_mr = active.upload(phantom.file(tmp_path), modality=common.MODALITY_MR).volume
    mask = active.upload_mask(phantom.file(tmp_path, "mask"), image.volume_id).volume
    answers = active.predict("nowhere", of_mr.volume_id, mask.volume_id, image.volume_id)
    reasons = [answer.failure.reason for answer in answers]
    assert ["VOLUME_NOT_FOUND", "MODALITY_MISMATCH", "NOT_AN_IMAGE", ""] == reasons
    assert "prediction" == answers[3].WhichOneof("outcome")


def test_downloads_with_the_geometry_that_went_in(running, phantom, tmp_path):
    """A NIfTI comes back with the same voxels, spacing, origin and direction, and the digest that is announced."""
    path = phantom.file(tmp_path, origin=(12.5, -7.25, 300.0), spacing=(0.75, 1.25, 2.5))
    sent = sitk.ReadImage(str(path))
    uploaded = running.upload(path).volume
    header, image = running.download(uploaded.volume_id, tmp_path)
    received = (tmp_path / f"{uploaded.volume_id}.nii.gz").read_bytes()
    assert np.array_equal(sitk.GetArrayFromImage(sent), sitk.GetArrayFromImage(image))
    assert pytest.approx(sent.GetOrigin()) == image.GetOrigin()
    assert pytest.approx(sent.GetSpacing()) == image.GetSpacing()
    assert pytest.approx(sent.GetDirection()) == image.GetDirection()
    assert (hashlib.sha256(received).hexdigest(), len(received)) == (header.sha256, header.size_bytes)


def test_keeps_original_and_canonical_bytes(running, phantom, tmp_path):
    """Both are objects that are named by the digests in the volume; the canonical one holds the voxels."""
    path = phantom.file(tmp_path)
    volume = running.upload(path).volume
    objects = DirectoryObjects(running.objects_directory)
    stored = objects.get(f"canonical/{volume.canonical_digest}")
    assert path.read_bytes() == objects.get(f"volumes/{volume.original_digest}")
    assert hashlib.sha256(stored).hexdigest() == volume.canonical_digest
    assert np.array_equal(phantom.image, canonical.decode(stored).voxels)


def test_receipt_tells_the_effort_against_the_coarse_label(running, phantom, tmp_path):
    """Voxels, millilitres, changed voxels, Dice and removed components of a correction by hand calculation."""
    image = running.upload(phantom.file(tmp_path)).volume
    coarse = phantom.mask.copy()
    coarse[9, 8:20, 6:16] = 0  # the liver's last slice was missed: 120 voxels
    coarse[0:2, 24:26, 20:22] = 1  # something else was taken for spleen: 8 voxels
    before = running.upload_mask(phantom.file(tmp_path, voxels=coarse), image.volume_id).volume
    answer = running.upload_mask(
        phantom.file(tmp_path, "mask"), image.volume_id, coarse_mask_volume_id=before.volume_id
    )
    receipt = answer.receipt
    liver, spleen = receipt.effort
    assert [("liver", 960), ("spleen", 280)] == [(o.organ_id, o.voxels) for o in receipt.organs]
    assert pytest.approx([960 * 0.08, 280 * 0.08]) == [o.volume_ml for o in receipt.organs]
    assert (120, 8) == (liver.voxels_changed, spleen.voxels_changed)
    assert pytest.approx([2 * 840 / (840 + 960), 2 * 280 / (280 + 288)]) == [liver.dice, spleen.dice]
    assert (0, 1) == (liver.components_removed, spleen.components_removed)
    # One rectangle of 12 x 10 pixels of 4 mm, four corners cut; drawn anew as that slice had nothing.
    assert pytest.approx(2 * (12 + 10) * 4 - 4 * (2 - 2**0.5) * 2, abs=0.01) == liver.added_path_length_mm
    assert 0 == spleen.added_path_length_mm
    assert (image.canonical_digest, answer.volume.canonical_digest) == (receipt.image_digest, receipt.mask_digest)


def test_receipt_without_a_coarse_label_counts_everything(running, phantom, tmp_path):
    """Against nothing each voxel is a change, and an organ that is nowhere has no Dice."""
    image = running.upload(phantom.file(tmp_path)).volume
    liver_only = np.where(phantom.mask == 6, phantom.mask, 0).astype(np.uint8)
    receipt = running.upload_mask(phantom.file(tmp_path, voxels=liver_only), image.volume_id).receipt
    liver, spleen = receipt.effort
    assert (960, 0.0) == (liver.voxels_changed, liver.dice)
    assert (0, False) == (spleen.voxels_changed, spleen.HasField("dice"))
    asked = volumes.GetReceiptRequest(project_id="project-a", receipt_id=receipt.receipt_id)
    assert receipt == running.volumes.GetReceipt(asked, timeout=10).receipt


def test_upload_happens_once_per_request_id(running, phantom, tmp_path):
    """The same request again is answered the same; another one under its id is refused."""
    path, request_id = phantom.file(tmp_path), uuid.uuid4().hex
    first = running.upload(path, request_id=request_id)
    again = running.upload(path, request_id=request_id)
    assert first == again
    with pytest.raises(grpc.RpcError) as refused:
        running.upload(path, request_id=request_id, modality=common.MODALITY_MR)
    assert grpc.StatusCode.ALREADY_EXISTS == refused.value.code()
    assert 2 == running.rows()


def test_volumes_are_read_back_in_the_order_asked_for(running, phantom, tmp_path):
    """A batch keeps the order of the ids, and names those that are missing, unless they could say something."""
    ids = [running.upload(phantom.file(tmp_path)).volume.volume_id for _ in range(3)]
    asked = volumes.BatchGetVolumesRequest(project_id="project-a", volume_ids=ids[::-1])
    found = running.volumes.BatchGetVolumes(asked, timeout=10).volumes
    assert ids[::-1] == [volume.volume_id for volume in found]
    missing = str(uuid.uuid4())
    asked.volume_ids.extend([missing, "ACC-1234567"])
    with pytest.raises(grpc.RpcError, match=missing) as refused:
        running.volumes.BatchGetVolumes(asked, timeout=10)
    assert grpc.StatusCode.NOT_FOUND == refused.value.code()
    assert "ACC-1234567" not in refused.value.details()


def test_segments_a_stream_and_stores_nothing(active, phantom, tmp_path):
    """Progress up to the last slice, then the result and a mask on the grid that went in; no row is added."""
    before = active.rows()
    answers = list(active.inference.Segment(segment_requests(phantom.file(tmp_path)), timeout=60))
    kinds = [answer.WhichOneof("part") for answer in answers]
    done = [answer.progress.slices_done for answer in answers if answer.WhichOneof("part") == "progress"]
    result = next(answer.result for answer in answers if answer.WhichOneof("part") == "result")
    data = b"".join(answer.chunk for answer in answers)
    path = tmp_path / "result.nii.gz"
    path.write_bytes(data)
    mask = sitk.ReadImage(str(path))
    assert sorted(kinds, key=["progress", "result", "chunk"].index) == kinds
    assert [0, 5, 10, 12] == done
    assert np.array_equal(phantom.mask, sitk.GetArrayFromImage(mask))
    assert pytest.approx((-60.0, -50.0, 100.0)) == mask.GetOrigin()
    assert (hashlib.sha256(data).hexdigest(), len(data)) == (result.sha256, result.size_bytes)
    assert before == active.rows()
    assert [] == active.service.incoming.files()


class SlowEngine(OnnxRuntimeEngine):
    """Takes its time, and counts its batches."""

    def __init__(self, objects):
        super().__init__(objects, batch_size=1)
        self.batches = 0
        self.started = threading.Event()

    def predict(self, package, images, cancellation):
        self.batches += 1
        if self.batches > 2:
            self.started.set()
            time.sleep(0.2)
        return super().predict(package, images, cancellation)


def test_hanging_up_stops_the_work(start, settings, phantom, package, tmp_path):
    """Once the caller has gone the engine gets no further batches, and the call's files are removed."""
    engine = SlowEngine(DirectoryObjects(settings.objects_directory))
    running = start(engine)
    running.activate(running.register(running.upload_package(*package)))
    call = running.inference.Segment(segment_requests(phantom.file(tmp_path)), timeout=60)
    assert engine.started.wait(30)
    call.cancel()
    deadline = time.monotonic() + 10
    while running.service.incoming.files() and time.monotonic() < deadline:
        time.sleep(0.05)
    stopped_at = engine.batches
    time.sleep(0.6)
    assert [] == running.service.incoming.files()
    assert stopped_at == engine.batches
    # The phantom has twelve slices, so twelve batches, and the model's own test was one.
    assert stopped_at < 13


def test_deadline_stops_the_work(start, settings, phantom, package, tmp_path):
    """A call that is out of time ends, and so does its work."""
    engine = SlowEngine(DirectoryObjects(settings.objects_directory))
    running = start(engine)
    running.activate(running.register(running.upload_package(*package)))
    image = running.upload(phantom.file(tmp_path)).volume
    request = inference.PredictVolumesRequest(
        project_id="project-a", model=inference.ModelSelector(active=True), volume_ids=[image.volume_id]
    )
    with pytest.raises(grpc.RpcError) as late:
        list(running.inference.PredictVolumes(request, timeout=0.7))
    time.sleep(0.5)
    stopped_at = engine.batches
    time.sleep(0.6)
    assert grpc.StatusCode.DEADLINE_EXCEEDED == late.value.code()
    assert stopped_at == engine.batches < 13


def test_answers_older_than_a_week_are_forgotten(running, phantom, tmp_path):
    """Beside the calls, request ids that nobody will send again are removed; newer ones stay."""
    for _ in range(2):
        running.upload(phantom.file(tmp_path))

    def count(change=""):
        with write(running.service.state.engine) as connection:
            if change:
                connection.exec_driver_sql(change)
            return connection.exec_driver_sql("SELECT count(*) FROM requests").scalar()

    assert 2 == count(
        "UPDATE requests SET answered_at = '2020-01-01 00:00:00.000000' "
        "WHERE request_id = (SELECT min(request_id) FROM requests)"
    )

    async def work():
        stopping = asyncio.Event()
        tasks = [asyncio.create_task(each(stopping)) for each in running.service.background]
        while count() > 1:
            await asyncio.sleep(0.02)
        stopping.set()
        await asyncio.gather(*tasks)

    asyncio.run(asyncio.wait_for(work(), 30))
    assert 1 == count()
