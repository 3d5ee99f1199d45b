"""`python -m bench.sizing`: what a case, a label, a model and a training step take. The figures of capacity planning.

Sizes of objects and rows are measured; memory of a training step is counted from the tensors that the real networks
keep for their backward pass, without computing anything (torch's device "meta").
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import sqlalchemy as sa
from rekindle import vocabulary
from rekindle_imaging import canonical
from rekindle_imaging.geometry import Geometry
from rekindle_inference.domain import records
from rekindle_inference.domain.records import VolumeId, VolumeRecord
from rekindle_inference.domain.slices import SliceRank, SliceRanks
from rekindle_inference.state import State, UnitOfWork
from rekindle_inference.usecases.predictions import made_mask
from rekindle_scheduler.state import open_state
from rekindle_servicekit.database import make_engine

from bench import scheduler
from bench.phantom import abdomen

if TYPE_CHECKING:
    from rekindle_trainer.domain.presets import Phase, Preset
    from torch import Tensor, nn

ORGANS = (vocabulary.Organ(id="liver", label_value=1), vocabulary.Organ(id="spleen", label_value=2))
CLASSES = 1 + len(ORGANS)
SLICES = 100
#: Input of each pass of the igniter besides its images.
MODALITIES = [("CT",), ("MR",)]
NOW = datetime(2030, 1, 1, tzinfo=UTC)
_GEOMETRY = Geometry(
    size=(512, 512, SLICES),
    spacing_mm=(0.8, 0.8, 2.5),
    origin_mm=(-200.0, -200.0, 0.0),
    direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sizing", description=__doc__)
    parser.add_argument("--cases", type=int, default=5000, help="rows are measured over so many")
    parser.add_argument("--inference", help="URL of an empty PostgreSQL database; without it SQLite")
    parser.add_argument("--scheduler", help="the same for the scheduler's rows")
    asked = parser.parse_args()
    for what, unit, value in _all(asked.cases, asked.inference, asked.scheduler):
        print(f"{what:72} {value:>12,.1f} {unit}", flush=True)


def _all(cases: int, inference: str | None, scheduling: str | None) -> Iterator[tuple[str, str, float]]:
    with tempfile.TemporaryDirectory(prefix="rekindle-sizing-") as name:
        folder = Path(name)
        yield from _objects(folder)
        yield from _inference_rows(inference or f"sqlite:///{folder / 'inference.sqlite3'}", cases)
        yield from _scheduler_rows(scheduling or f"sqlite:///{folder / 'scheduler.sqlite3'}", cases)
    yield from _training()


def _objects(folder: Path) -> Iterator[tuple[str, str, float]]:
    """A volume as it is sent and as it is kept."""
    import SimpleITK as sitk

    image, mask = abdomen(SLICES, 512, in_plane_mm=0.8, slice_mm=2.5)
    name = f"{SLICES} x 512 x 512"
    for volume, kind in ((image, vocabulary.VolumeKind.IMAGE), (mask, vocabulary.VolumeKind.MASK)):
        path = folder / f"{kind.value}.nii.gz"
        sitk.WriteImage(sitk.GetImageFromArray(volume.voxels), str(path))
        yield f"{kind.value} {name}, .nii.gz", "kB", path.stat().st_size / 1e3
        yield f"{kind.value} {name}, canonical", "kB", len(canonical.encode(volume, kind.value)) / 1e3
    yield f"image {name}, DICOM without compression, pixels alone", "kB", image.voxels.nbytes / 1e3


def _inference_rows(url: str, cases: int) -> Iterator[tuple[str, str, float]]:
    state = State(url)
    engine, size = state.engine, _database_bytes(state.engine)

    def grown(what: str) -> tuple[str, str, float]:
        nonlocal size
        before, size = size, _database_bytes(engine)
        return f"inference, {engine.dialect.name}: {what}", "kB", (size - before) / 1e3 / cases

    images = [_image(number) for number in range(cases)]
    with state.write() as uow:
        for image in images:
            uow.volumes.add(image)
    yield grown(f"image from DICOM, {SLICES} instances")
    plain = replace(images[0], source=vocabulary.SourceReference())
    with state.write() as uow:
        for _ in range(cases):
            uow.volumes.add(replace(plain, volume_id=VolumeId(str(uuid4()))))
    yield grown("image from NIfTI")
    model = _model()
    with state.write() as uow:
        uow.models.add(model)
        masks = [_predict(uow, image, model) for image in images]
    yield grown("coarse label: mask, prediction, slice ranks")
    with state.write() as uow:
        for image, coarse in zip(images, masks, strict=True):
            _correct(uow, image, coarse)
    yield grown("corrected label: mask, receipt")
    state.close()


def _scheduler_rows(url: str, cases: int) -> Iterator[tuple[str, str, float]]:
    store = open_state(url)
    engine = make_engine(url)
    size, labelled = _database_bytes(engine), min(500, cases - 1)
    project_id = scheduler.annotating(store, [str(uuid4()) for _ in range(cases)], selected=labelled)
    grown = _database_bytes(engine)
    yield f"scheduler, {engine.dialect.name}: case with a coarse label", "kB", (grown - size) / 1e3 / cases
    for number in range(labelled):
        scheduler.turn(store, scheduler.PEOPLE[number % len(scheduler.PEOPLE)], project_id)
    more = (_database_bytes(engine) - grown) / 1e3 / labelled
    yield f"scheduler, {engine.dialect.name}: lease, submission, ledger, events", "kB", more
    store.close()
    engine.dispose()


def _database_bytes(engine: sa.Engine) -> int:
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        if engine.dialect.name == "postgresql":
            connection.exec_driver_sql("VACUUM")
            return int(connection.exec_driver_sql("SELECT pg_database_size(current_database())").scalar_one())
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
        return int(pages * connection.exec_driver_sql("PRAGMA page_size").scalar_one())


def _image(number: int) -> VolumeRecord:
    series = f"1.2.826.0.1.3680043.8.498.{10**30 + number}"
    source = vocabulary.SourceReference(
        study_instance_uid=f"{series}.1",
        series_instance_uid=series,
        frame_of_reference_uid=f"{series}.2",
        sop_instance_uids=tuple(f"{series}.3.{k}" for k in range(SLICES)),
        accession_number=f"A{number:08}",
    )
    return VolumeRecord(
        volume_id=VolumeId(str(uuid4())),
        project_id=records.ProjectId("6f1c0f2e-3a39-4bd2-9f3e-3b8f1f0d6a01"),
        kind=vocabulary.VolumeKind.IMAGE,
        geometry=_GEOMETRY,
        original_digest=f"{number:064x}",
        canonical_digest=f"{number + 1:064x}",
        original_format=vocabulary.FileFormat.DICOM,
        source=source,
        created_at=NOW,
        modality=vocabulary.Modality.CT,
    )


def _model() -> records.ModelVersion:
    return records.ModelVersion(
        model_version_id=records.ModelVersionId(str(uuid4())),
        project_id=_image(0).project_id,
        role=vocabulary.ModelRole.SUSTAINER,
        version=1,
        package_digest="a" * 64,
        organs=ORGANS,
        modality=vocabulary.Modality.CT,
        created_at=NOW,
    )


def _predict(uow: UnitOfWork, image: VolumeRecord, model: records.ModelVersion) -> VolumeId:
    mask = made_mask(image, ORGANS, uuid4().hex * 2, NOW)
    quality = tuple(
        vocabulary.OrganQuality(
            organ_id=organ.id, soft_dice_confidence=0.9312345678, predicted_ml=1432.123456,
            boundary_length_mm=23456.789012, components=3, slices=45,
        )
        for organ in ORGANS
    )  # fmt: skip
    ranks = tuple(SliceRank(slice=k, voxels_wrong=1234.5 - k, uncertainty=0.1234) for k in range(SLICES // 2))
    uow.volumes.add(mask)
    uow.predictions.add(
        records.Prediction(
            model_version_id=model.model_version_id, image_volume_id=image.volume_id,
            mask_volume_id=mask.volume_id, mask_digest=mask.canonical_digest, quality=quality,
            predicted_minutes=8.123456, created_at=NOW,
        )
    )  # fmt: skip
    uow.predictions.add_slice_ranks(
        SliceRanks(
            mask_volume_id=mask.volume_id, project_id=image.project_id, model_version_id=model.model_version_id,
            organs={"": ranks, **{organ.id: ranks for organ in ORGANS}},
        )
    )  # fmt: skip
    return mask.volume_id


def _correct(uow: UnitOfWork, image: VolumeRecord, coarse: VolumeId) -> None:
    mask = replace(made_mask(image, ORGANS, uuid4().hex * 2, NOW), original_digest=uuid4().hex * 2)
    uow.volumes.add(mask)
    uow.receipts.add(
        records.Receipt(
            receipt_id=records.ReceiptId(str(uuid4())), project_id=image.project_id, mask_volume_id=mask.volume_id,
            image_volume_id=image.volume_id, mask_digest=mask.canonical_digest, image_digest=image.canonical_digest,
            coarse_mask_volume_id=coarse,
            organs=tuple(records.OrganFound(organ_id=o.id, voxels=123456, volume_ml=1432.5) for o in ORGANS),
            effort=tuple(
                vocabulary.OrganEffort(
                    organ_id=o.id, voxels_changed=2345, added_path_length_mm=1234.5, dice=0.9312345,
                    components_removed=1,
                )
                for o in ORGANS
            ),
            created_at=NOW,
        )
    )  # fmt: skip


def _training() -> Iterator[tuple[str, str, float]]:
    import torch
    from rekindle_trainer.domain.presets import PRESETS
    from rekindle_trainer.process.networks.igniter import Igniter
    from rekindle_trainer.process.networks.transunet import TransUNet

    for preset in (PRESETS["paper"], PRESETS["cpu"]):
        with torch.device("meta"):
            networks = (
                ("igniter", Igniter(preset.igniter, CLASSES, ("CT", "MR")), preset.igniter_phases[0], MODALITIES),
                ("TransUNet", TransUNet(preset.transunet, CLASSES), preset.recipes["paper"][-1], [()]),
            )
        for name, network, phase, passes in networks:
            yield from _of_network(f"{preset.name} {name}", network, preset, phase, passes)


def _of_network(
    name: str, network: nn.Module, preset: Preset, phase: Phase, passes: list[tuple[str, ...]]
) -> Iterator[tuple[str, str, float]]:
    weights = sum(parameter.numel() for parameter in network.parameters()) * 4
    #: Gradients, and one moment (sgd) or two.
    held = weights * (3 if phase.optimizer == "sgd" else 4)
    kept = sum(_kept_bytes(network, phase.batch, preset, modality) for modality in passes)
    yield f"{name}, weights in fp32 (a package, a checkpoint without its optimiser)", "MB", weights / 1e6
    yield f"{name}, weights, gradients and optimiser", "MB", held / 1e6
    yield f"{name}, kept for the backward pass of a batch of {phase.batch * len(passes)}", "MB", kept / 1e6


def _kept_bytes(network: nn.Module, batch: int, preset: Preset, modality: tuple[str, ...]) -> int:
    import torch

    channels = preset.igniter.in_channels if modality else preset.transunet.in_channels
    images = torch.empty(batch, channels, *preset.transunet.size, device="meta")
    weights = {_storage(parameter) for parameter in network.parameters()}
    with _saved() as kept:
        network.train()(images, *modality)
    return sum(size for storage, size in kept.items() if storage not in weights)


@contextmanager
def _saved() -> Generator[dict[int, int]]:
    """Bytes by storage of what autograd keeps meanwhile."""
    import torch

    kept: dict[int, int] = {}
    alive: list[Tensor] = []

    def pack(tensor: Tensor) -> Tensor:
        # Kept alive, so that no address is given twice.
        alive.append(tensor)
        kept[_storage(tensor)] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield kept


def _storage(tensor: Tensor) -> int:
    """Its address, which tensors that share memory have in common; "meta" has no other."""
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


if __name__ == "__main__":
    main()
