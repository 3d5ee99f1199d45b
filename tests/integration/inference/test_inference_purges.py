"""Erasing volumes: nothing of the patient is left in database or object store, and nothing of anybody else is gone."""

from __future__ import annotations

import hashlib
import sqlite3
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from phantom import ORGANS, Phantom
from refusals import refused
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2, volumes_pb2
from rekindle.errors import NotFound
from rekindle.status import error_from_rpc
from rekindle_inference.usecases import segmentation_worker, volumes
from rekindle_inference.usecases.sweeping import sweep_uploads

PROJECT = "project-a"
CANARY = "1.2.826.0.1.3680043.8.498.424242"


def purge(running: Any, *volume_ids: str, request_id: str = "", **fields: Any) -> volumes_pb2.PurgeVolumesResponse:
    request = volumes_pb2.PurgeVolumesRequest(
        request_id=request_id or uuid.uuid4().hex, project_id=PROJECT, volume_ids=volume_ids, **fields
    )
    return running.volumes.PurgeVolumes(request, timeout=30)


def canary(active: Any, phantom: Phantom, folder: Path, shift: int = 1, accession: str = "ACC-CANARY") -> Any:
    """An uploaded image that names its patient's study in every way that there is."""
    source = common.SourceReference(
        study_instance_uid=f"{CANARY}.1",
        series_instance_uid=f"{CANARY}.2",
        frame_of_reference_uid=f"{CANARY}.3",
        sop_instance_uids=[f"{CANARY}.4.{number}" for number in range(3)],
        accession_number=accession,
    )
    path = phantom.file(folder, voxels=np.roll(phantom.image, shift, axis=1))
    return active.upload(path, source=source).volume


def everything(running: Any, folder: Path) -> bytes:
    """All bytes of the database's files and the object store, and all names in it."""
    stored = [path for path in running.objects_directory.rglob("*") if path.is_file()]
    database = list(folder.glob("state.sqlite3*"))
    assert database
    names = "\n".join(str(path) for path in stored).encode()
    return names + b"".join(path.read_bytes() for path in [*stored, *database])


def test_nothing_of_an_erased_image_is_left(active: Any, phantom: Phantom, tmp_path: Path) -> None:
    """UIDs, accession, digests, originals, masks and receipts are gone, also from the database's free pages."""
    image = canary(active, phantom, tmp_path)
    predicted = active.predict(image.volume_id)[0].prediction
    sent = active.upload_mask(
        phantom.file(tmp_path, "mask"), image.volume_id, coarse_mask_volume_id=predicted.mask_volume_id
    )
    mask = sent.volume
    before = everything(active, tmp_path)
    needles = [CANARY, "ACC-CANARY", image.original_digest, image.canonical_digest, mask.canonical_digest]
    assert all(needle.encode() in before for needle in needles)

    answer = purge(active, image.volume_id)

    assert answer.volumes == 3
    assert answer.objects == 5  # two originals, three canonical forms
    assert set(answer.erased_digests) == {image.canonical_digest, mask.canonical_digest, predicted.mask_digest}
    assert purge(active, forget_digests=answer.erased_digests).volumes == 0
    after = everything(active, tmp_path)
    assert [needle for needle in needles if needle.encode() in after] == []
    for volume_id in (image.volume_id, mask.volume_id, predicted.mask_volume_id):
        with pytest.raises(grpc.RpcError) as caught:
            active.volumes.GetVolume(volumes_pb2.GetVolumeRequest(project_id=PROJECT, volume_id=volume_id), timeout=5)
        error = error_from_rpc(caught.value)
        assert (type(error), error.reason) == (NotFound, "PURGED")


def test_no_mask_is_left_of_a_segmentation_that_ends_while_its_image_is_erased(
    active: Any, phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the predicted mask nor the one without the organs that were left out, which was stored already."""
    active.limit(inference_pb2.QualityLimit(organ_id="liver", min_soft_dice_confidence=1.0))
    image = active.upload(phantom.file(tmp_path)).volume
    change, stored = segmentation_worker._change, []

    def late(*arguments: Any) -> bool:
        stored.extend(active.service.objects.list("canonical/"))
        purge(active, image.volume_id)
        try:
            return change(*arguments)
        finally:
            done.set()

    done = threading.Event()
    monkeypatch.setattr(segmentation_worker, "_change", late)
    active.create(image.volume_id)
    assert done.wait(60)

    assert len(set(stored)) == 3
    eventually_empty(active, "canonical/")


def test_masks_of_an_erased_image_that_are_on_their_way_in_are_dropped(
    active: Any, phantom: Phantom, tmp_path: Path
) -> None:
    """The upload is ended with the purge, and the sweep removes what had arrived."""
    image, other = (canary(active, phantom, tmp_path, shift) for shift in (1, 2))
    data = phantom.file(tmp_path, "mask").read_bytes()
    begun = [begin_mask(active, each.volume_id, data) for each in (image, other)]

    purge(active, image.volume_id)
    sweep_uploads(active.service.background[0]._uploads)

    states = [
        active.volumes.QueryUpload(
            volumes_pb2.QueryUploadRequest(project_id=PROJECT, upload_id=upload_id), timeout=10
        ).upload.state
        for upload_id in begun
    ]
    assert states == [volumes_pb2.UPLOAD_STATE_ABORTED, volumes_pb2.UPLOAD_STATE_OPEN]
    assert {key.split("/")[1] for key in active.service.objects.list("uploads/")} == {begun[1]}


def test_no_mask_is_left_whose_image_is_erased_while_it_is_taken_in(
    active: Any, phantom: Phantom, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither its file nor its voxels; whoever sent it is told that the image was erased."""
    image = canary(active, phantom, tmp_path)
    examine = volumes._examine

    def late(*arguments: Any) -> Any:
        purge(active, image.volume_id)
        return examine(*arguments)

    monkeypatch.setattr(volumes, "_examine", late)
    error = refused(lambda: active.upload_mask(phantom.file(tmp_path, "mask"), image.volume_id))

    assert (NotFound, "PURGED") == (type(error), error.reason)
    assert [[], []] == [list(active.service.objects.list(folder)) for folder in ("volumes/", "canonical/")]


def begin_mask(running: Any, image_volume_id: str, data: bytes) -> str:
    """An upload of a mask in pieces, of which one has arrived; its id."""
    header = volumes_pb2.UploadVolumeHeader(
        project_id=PROJECT,
        kind=common.VOLUME_KIND_MASK,
        format=common.FILE_FORMAT_NIFTI,
        sha256=hashlib.sha256(data).hexdigest(),
        image_volume_id=image_volume_id,
        organs=ORGANS,
    )
    request = volumes_pb2.CreateUploadRequest(request_id=uuid.uuid4().hex, header=header, size_bytes=len(data))
    upload_id = running.volumes.CreateUpload(request, timeout=10).upload.upload_id
    chunk = volumes_pb2.PutChunkRequest(project_id=PROJECT, upload_id=upload_id, data=data[:100])
    running.volumes.PutChunk(chunk, timeout=10)
    return upload_id


def eventually_empty(running: Any, prefix: str) -> None:
    deadline = time.monotonic() + 10
    while list(running.service.objects.list(prefix)):
        assert time.monotonic() < deadline, "objects of the image are left"
        time.sleep(0.02)


def test_bytes_that_somebody_else_has_stay(active: Any, phantom: Phantom, tmp_path: Path) -> None:
    """The same image registered twice: the other registration keeps its pixels, its source and its prediction."""
    first, second = (canary(active, phantom, tmp_path, accession=f"ACC-{number}") for number in range(2))
    assert first.canonical_digest == second.canonical_digest
    kept = active.predict(second.volume_id)[0].prediction
    assert active.predict(first.volume_id)[0].prediction.mask_digest == kept.mask_digest

    answer = purge(active, first.volume_id)

    assert list(answer.erased_digests) == []
    header, picture = active.download(second.volume_id, tmp_path)
    assert header.volume.source.accession_number == "ACC-1"
    assert picture.GetSize() == (32, 32, 12)
    assert active.download(kept.mask_volume_id, tmp_path)[0].volume.canonical_digest == kept.mask_digest
    assert purge(active, second.volume_id).objects >= 3


def test_a_repeated_request_answers_the_same_and_a_new_one_erases_nothing(
    active: Any, phantom: Phantom, tmp_path: Path
) -> None:
    """Both are harmless; unknown ids are passed over."""
    image = canary(active, phantom, tmp_path)

    first = purge(active, image.volume_id, request_id="once")

    assert purge(active, image.volume_id, request_id="once") == first
    assert first.volumes == 1
    assert purge(active, image.volume_id, "never-there").volumes == 0


def test_an_erased_image_can_be_sent_again(active: Any, phantom: Phantom, tmp_path: Path) -> None:
    """It is a new volume, and its pixels are stored anew."""
    image = canary(active, phantom, tmp_path)
    purge(active, image.volume_id)

    again = canary(active, phantom, tmp_path)

    assert again.volume_id != image.volume_id
    assert active.download(again.volume_id, tmp_path)[0].volume.volume_id == again.volume_id


def test_models_that_learnt_from_it_are_marked_now_and_later(
    active: Any, phantom: Phantom, make_onnx: Any, make_manifest: Any
) -> None:
    """By their snapshot, and by the weights that they began with, however far back; others are not marked."""

    def register(weights: str, snapshot: str, initial: str = "", seed: float = 0.0) -> inference_pb2.Model:
        thresholds = tuple(value + seed for value in phantom.thresholds())
        model = make_onnx(thresholds).SerializeToString()
        lineage = {"weights_digest": weights * 64, "snapshot_digest": snapshot * 64}
        if initial:
            lineage["initial_weights_digest"] = initial * 64
        return active.register(active.upload_package(make_manifest(model, thresholds, lineage=lineage), model))

    other = register("1", "a", seed=0.01)
    taught = register("2", "b", seed=0.02)
    heir = register("3", "c", initial="2", seed=0.03)

    answer = purge(active, snapshot_digests=["b" * 64])

    assert set(answer.marked_model_version_ids) == {taught.model_version_id, heir.model_version_id}
    later = register("4", "d", initial="3", seed=0.04)
    innocent = register("5", "e", initial="1", seed=0.05)
    listed = active.inference.ListModels(inference_pb2.ListModelsRequest(project_id=PROJECT), timeout=5).models
    marked = {model.model_version_id for model in listed if model.trained_on_purged}
    assert marked == {taught.model_version_id, heir.model_version_id, later.model_version_id}
    assert {other.model_version_id, innocent.model_version_id} <= {model.model_version_id for model in listed} - marked


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"volume_ids": ["v"] * 1001}, "volume_ids must be at most 1000"),
        ({"snapshot_digests": ["../x"]}, "snapshot_digests must be SHA-256"),
        ({"project_id": "../x"}, "project_id must be"),
        ({"request_id": ""}, "request_id is missing"),
    ],
)
def test_wrong_requests_name_the_field_and_erase_nothing(
    active: Any, phantom: Phantom, tmp_path: Path, fields: dict[str, Any], words: str
) -> None:
    """Before anything is touched."""
    image = canary(active, phantom, tmp_path)
    request = volumes_pb2.PurgeVolumesRequest(
        **{"request_id": "r", "project_id": PROJECT, "volume_ids": [image.volume_id], **fields}
    )
    with pytest.raises(grpc.RpcError, match=words):
        active.volumes.PurgeVolumes(request, timeout=5)
    assert active.download(image.volume_id, tmp_path)[0].volume.volume_id == image.volume_id


def test_the_database_forgets_the_volume_of_another_project_never(
    active: Any, phantom: Phantom, tmp_path: Path
) -> None:
    """An id of another project is as unknown as any."""
    image = active.upload(phantom.file(tmp_path), project_id="project-b").volume

    assert purge(active, image.volume_id).volumes == 0
    with sqlite3.connect(tmp_path / "state.sqlite3") as database:
        assert database.execute("SELECT count(*) FROM volumes").fetchone() == (1,)
    database.close()
