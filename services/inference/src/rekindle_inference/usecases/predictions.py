"""Predictions: registered volumes with one model version, once each; and single files, which are not kept."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from uuid import uuid4

from rekindle.errors import DependencyUnavailable, InvalidInput
from rekindle.vocabulary import FileFormat, Modality, Organ, OrganQuality, SourceReference, VolumeKind
from rekindle_imaging import canonical
from rekindle_imaging.volume import Volume
from rekindle_servicekit import layout
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.domain.abstention import Abstention, decide_abstentions, kept_organs, without_organs
from rekindle_inference.domain.easiness import predicted_minutes
from rekindle_inference.domain.records import ModelVersion, Prediction, VolumeId, VolumeRecord
from rekindle_inference.domain.segmentations import Priority
from rekindle_inference.domain.slices import SliceRanks
from rekindle_inference.ports import (
    Engine,
    MaskProvenance,
    Observation,
    Observer,
    Reader,
    Segmentations,
    SegmentationSource,
    Stage,
    Unobserved,
    Writer,
)
from rekindle_inference.state import State, UnitOfWork
from rekindle_inference.usecases.checks import (
    drop_if_erased,
    keep_stored,
    load_volume,
    purged,
    require_volume,
)
from rekindle_inference.usecases.dicom_seg import no_dicom_source
from rekindle_inference.usecases.gate import PriorityGate
from rekindle_inference.usecases.packages import package_of
from rekindle_inference.usecases.segmentation import Progress, Segmentation, segment

MAX_VOLUMES = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Predictions:
    """What the use cases of predictions work with."""

    state: State
    objects: Objects
    engine: Engine
    reader: Reader
    writer: Writer
    segmentations: Segmentations
    max_voxels: int
    gate: PriorityGate = field(default_factory=PriorityGate)
    observer: Observer = field(default_factory=Unobserved)


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentedFile:
    """A mask as a file, and what it says of itself."""

    path: Path
    sha256: str
    size_bytes: int
    mask: Volume
    quality: tuple[OrganQuality, ...]
    #: Organs that the mask lacks, for their quality.
    abstentions: tuple[Abstention, ...]


def _unwatched(_done: int, _total: int) -> None:
    """For predictions whose progress nobody watches."""


def predict_volume(
    predictions: Predictions,
    model: ModelVersion,
    volume_id: str,
    cancellation: Cancellation,
    *,
    priority: Priority = Priority.BATCH,
    on_progress: Progress = _unwatched,
) -> Prediction:
    """The prediction of a registered image with a model version: the stored one, or a new one that is stored.

    NotFound, InvalidInput (NOT_AN_IMAGE, MODALITY_MISMATCH, what the model makes of it), Cancelled.
    """
    with predictions.observer.prediction() as observed:
        return _predict_volume(predictions, model, volume_id, cancellation, priority, on_progress, observed)


def _predict_volume(
    predictions: Predictions,
    model: ModelVersion,
    volume_id: str,
    cancellation: Cancellation,
    priority: Priority,
    on_progress: Progress,
    observed: Observation,
) -> Prediction:
    with predictions.state.read() as uow:
        image = require_volume(uow, model.project_id, volume_id, field="volume_ids")
        known = uow.predictions.get(model.model_version_id, image.volume_id)
    if known is not None:
        return known
    check_fits(image, model)
    package = package_of(predictions.objects, model)
    with observed.stage(Stage.READ):
        voxels = load_volume(predictions.objects, image.canonical_digest, predictions.max_voxels)
    with predictions.gate.present(priority) as turn:
        result = segment(voxels, package, predictions.engine, turn, cancellation, on_progress, observed)
    with observed.stage(Stage.WRITE):
        return _store(predictions, model, image, result)


def _store(predictions: Predictions, model: ModelVersion, image: VolumeRecord, result: Segmentation) -> Prediction:
    data = canonical.encode(result.mask, VolumeKind.MASK.value)
    digest = canonical.digest(data)
    predictions.objects.put(layout.canonical(digest), data)
    try:
        with predictions.state.write() as uow:
            # The row first: from then on nobody erases the same bytes.
            known = uow.predictions.get(model.model_version_id, image.volume_id)
            prediction = known or _record(uow, model, image, result, digest)
            keep_stored(predictions.objects, layout.canonical(digest), data)
            return prediction
    except DependencyUnavailable:
        # No row can refer to an image that was erased meanwhile: neither may a mask of it stay.
        if drop_if_erased(predictions.state, predictions.objects, image, canonical_digest=digest):
            raise purged(image.volume_id, "volume_ids") from None
        raise


def segment_file(
    predictions: Predictions,
    model: ModelVersion,
    file: Path,
    formats: tuple[FileFormat, FileFormat],
    on_progress: Progress,
    cancellation: Cancellation,
    *,
    priority: Priority = Priority.ROUTINE,
) -> SegmentedFile:
    """Segment one foreign file, `formats` being its own and the mask's; nothing is stored.

    The mask's file lies beside the one that came. A DICOM SEG is a new object each time. Organs below the project's
    quality limits are left out. InvalidInput, Cancelled, DeadlineExceeded.
    """
    with predictions.observer.prediction() as observed:
        return _segment_file(predictions, model, file, formats, on_progress, cancellation, priority, observed)


def _segment_file(
    predictions: Predictions,
    model: ModelVersion,
    file: Path,
    formats: tuple[FileFormat, FileFormat],
    on_progress: Progress,
    cancellation: Cancellation,
    priority: Priority,
    observed: Observation,
) -> SegmentedFile:
    if formats[1] is FileFormat.DICOM_SEG and formats[0] is not FileFormat.DICOM:
        raise no_dicom_source()
    with observed.stage(Stage.READ):
        parsed = predictions.reader.read(file, VolumeKind.IMAGE, formats[0], cancellation)
        image = canonical.decode(parsed.data, max_voxels=predictions.max_voxels)
    if parsed.modality is not None:
        _check_modality(parsed.modality, model)
    package = package_of(predictions.objects, model)
    with predictions.gate.present(priority) as turn:
        result = segment(image, package, predictions.engine, turn, cancellation, on_progress, observed)
    with observed.stage(Stage.WRITE):
        return _write_segmented(predictions, model, file, formats[1], parsed.source, result, cancellation)


def _write_segmented(
    predictions: Predictions,
    model: ModelVersion,
    file: Path,
    format: FileFormat,
    source_reference: SourceReference,
    result: Segmentation,
    cancellation: Cancellation,
) -> SegmentedFile:
    """The mask beside the file that came, without the organs below the project's limits."""
    with predictions.state.read() as uow:
        abstentions = decide_abstentions(result.quality, uow.limits.of_project(model.project_id))
        origin = MaskProvenance(is_corrected=False, model=model, created_at=uow.now)
    mask = Volume(without_organs(result.mask.voxels, model.organs, abstentions), result.mask.geometry)
    if format is FileFormat.DICOM_SEG:
        source = SegmentationSource(path=file, series_instance_uid=source_reference.series_instance_uid)
        write = predictions.segmentations.write
        path = write(source, mask, kept_organs(model.organs, abstentions), origin, file.parent, cancellation)
    else:
        path = predictions.writer.write(mask, format, file.parent)
    with path.open("rb") as written:
        sha256 = hashlib.file_digest(written, "sha256").hexdigest()
    return SegmentedFile(
        path=path,
        sha256=sha256,
        size_bytes=path.stat().st_size,
        mask=mask,
        quality=result.quality,
        abstentions=abstentions,
    )


def check_fits(image: VolumeRecord, model: ModelVersion) -> None:
    """InvalidInput: NOT_AN_IMAGE, MODALITY_MISMATCH."""
    if image.kind is not VolumeKind.IMAGE:
        raise InvalidInput("the volume is a mask: only images can be predicted", reason="NOT_AN_IMAGE")
    _check_modality(image.modality, model)


def _check_modality(modality: Modality | None, model: ModelVersion) -> None:
    if modality is not model.modality:
        raise InvalidInput(
            f"the volume is {modality} and the model is made for {model.modality}",
            reason="MODALITY_MISMATCH",
        )


def _record(uow: UnitOfWork, model: ModelVersion, image: VolumeRecord, result: Segmentation, digest: str) -> Prediction:
    mask = made_mask(image, model.organs, digest, uow.now)
    prediction = Prediction(
        model_version_id=model.model_version_id,
        image_volume_id=image.volume_id,
        mask_volume_id=mask.volume_id,
        mask_digest=digest,
        quality=result.quality,
        predicted_minutes=predicted_minutes(result.quality, image.geometry.size[2]),
        created_at=uow.now,
    )
    uow.volumes.add(mask)
    uow.predictions.add(prediction)
    uow.predictions.add_slice_ranks(
        SliceRanks(
            mask_volume_id=mask.volume_id,
            project_id=mask.project_id,
            model_version_id=model.model_version_id,
            organs=result.slice_ranks,
        )
    )
    return prediction


def made_mask(image: VolumeRecord, organs: tuple[Organ, ...], digest: str, now: datetime) -> VolumeRecord:
    """The record of a mask of `organs` that the service made itself, on the grid of `image`."""
    return VolumeRecord(
        volume_id=VolumeId(str(uuid4())),
        project_id=image.project_id,
        kind=VolumeKind.MASK,
        geometry=image.geometry,
        original_digest="",
        canonical_digest=digest,
        original_format=FileFormat.NIFTI,
        source=SourceReference(),
        created_at=now,
        image_volume_id=image.volume_id,
        organs=organs,
    )
