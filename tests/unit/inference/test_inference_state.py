"""What goes into the database comes out the same, and only one of two writers wins."""

import threading
from datetime import UTC, datetime

import pytest
from rekindle.errors import DependencyUnavailable
from rekindle.vocabulary import (
    CodedConcept,
    FileFormat,
    Modality,
    ModelRole,
    Organ,
    OrganEffort,
    OrganQuality,
    SourceReference,
    VolumeKind,
)
from rekindle_imaging.geometry import Geometry
from rekindle_inference.domain.records import ModelVersion, OrganFound, Prediction, Receipt, VolumeRecord
from rekindle_inference.state import State

NOW = datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)
GRID = Geometry(
    size=(3, 4, 5),
    spacing_mm=(0.7, 0.7, 2.5),
    origin_mm=(-1.5, 2.0, 3.0),
    direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
)
IMAGE = VolumeRecord(
    volume_id="image",
    project_id="p",
    kind=VolumeKind.IMAGE,
    geometry=GRID,
    original_digest="o",
    canonical_digest="c",
    original_format=FileFormat.NIFTI,
    source=SourceReference(study_instance_uid="1.2", sop_instance_uids=("1.2.3", "1.2.4")),
    created_at=NOW,
    modality=Modality.MR,
)
MASK = VolumeRecord(
    volume_id="mask",
    project_id="p",
    kind=VolumeKind.MASK,
    geometry=GRID,
    original_digest="",
    canonical_digest="m",
    original_format=FileFormat.NIFTI,
    source=SourceReference(),
    created_at=NOW,
    image_volume_id="image",
)


def model(number):
    code = CodedConcept(scheme="SCT", value="10200004", meaning="Liver")
    return ModelVersion(
        model_version_id=f"m{number}",
        project_id="p",
        role=ModelRole.SUSTAINER,
        version=number,
        package_digest=f"d{number}",
        organs=(Organ(id="liver", label_value=6, code=code), Organ(id="spleen", label_value=1)),
        modality=Modality.CT,
        created_at=NOW,
        weights_digest="w",
        snapshot_digest="s",
    )


def migrated(url):
    """The schema of a new database."""
    State(url).close()


@pytest.fixture
def state(make_database):
    state = State(make_database(migrated), clock=lambda _: NOW)
    yield state
    state.close()


def test_records_come_back_the_same(state):
    """Volumes, receipts, models and predictions with everything in them."""
    receipt = Receipt(
        receipt_id="r",
        project_id="p",
        mask_volume_id="mask",
        image_volume_id="image",
        mask_digest="m",
        image_digest="c",
        coarse_mask_volume_id=None,
        organs=(OrganFound(organ_id="liver", voxels=5, volume_ml=0.1),),
        effort=(
            OrganEffort(
                organ_id="liver",
                voxels_changed=2,
                added_path_length_mm=1.5,
                dice=None,
                components_removed=1,
            ),
        ),
        created_at=NOW,
    )
    quality = OrganQuality(
        organ_id="liver",
        soft_dice_confidence=None,
        predicted_ml=0.0,
        boundary_length_mm=0.0,
        components=0,
        slices=0,
    )
    prediction = Prediction(
        model_version_id="m1",
        image_volume_id="image",
        mask_volume_id="mask",
        mask_digest="m",
        quality=(quality,),
        predicted_minutes=2.5,
        created_at=NOW,
    )
    with state.write() as uow:
        uow.volumes.add(IMAGE)
        uow.volumes.add(MASK)
        uow.receipts.add(receipt)
        uow.models.add(model(1))
        uow.predictions.add(prediction)
    with state.read() as uow:
        assert {"image": IMAGE, "mask": MASK} == uow.volumes.get_all("p", ["image", "mask", "other"])
        assert receipt == uow.receipts.get("p", "r") == uow.receipts.of_mask("p", "mask")
        assert model(1) == uow.models.get("p", "m1") == uow.models.of_package("p", ModelRole.SUSTAINER, "d1")
        assert prediction == uow.predictions.get("m1", "image")
        assert (None, None, {}) == (
            uow.receipts.get("q", "r"),
            uow.models.get("q", "m1"),
            uow.volumes.get_all("q", ["image"]),
        )


def test_a_transaction_that_fails_leaves_nothing(state):
    """A volume is visible with all that belongs to it, or not at all."""

    def fail():
        with state.write() as uow:
            uow.volumes.add(IMAGE)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with state.read() as uow:
        assert uow.volumes.get("p", "image") is None


def test_the_same_version_number_twice_is_a_conflict(state):
    """Whoever comes second may try again."""
    with state.write() as uow:
        assert 1 == uow.models.next_version("p")
        uow.models.add(model(1))
        assert 2 == uow.models.next_version("p")
    with pytest.raises(DependencyUnavailable) as late, state.write() as uow:
        uow.models.add(model(1))
    assert "CONCURRENT_WRITE" == late.value.reason


def test_one_of_two_moves_of_the_pointer_wins(state):
    """Both believe the same version to be active; compare-and-set lets one of them through."""
    with state.write() as uow:
        for number in (1, 2, 3):
            uow.models.add(model(number))
        assert uow.models.move_pointer("p", expected=None, to="m1")
        assert not uow.models.move_pointer("p", expected=None, to="m2")
    moved, ready = [], threading.Barrier(2)

    def move(to):
        ready.wait()
        with state.write() as uow:
            moved.append(uow.models.move_pointer("p", expected="m1", to=to))

    threads = [threading.Thread(target=move, args=[to]) for to in ("m2", "m3")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    with state.read() as uow:
        assert uow.models.active("p").model_version_id in {"m2", "m3"}
    assert [False, True] == sorted(moved)


def test_many_ids_in_one_question(state):
    """More ids than a statement takes are asked for in parts."""
    with state.write() as uow:
        uow.volumes.add(IMAGE)
    ids = [f"missing-{number}" for number in range(1200)]
    with state.read() as uow:
        assert ["image"] == list(uow.volumes.get_all("p", [*ids, "image"]))
