"""Masks as DICOM SEG: what a mask's values mean, who made it, which instances it refers to."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from rekindle.errors import InvalidInput, NotFound
from rekindle.vocabulary import FileFormat, Organ, VolumeKind
from rekindle_servicekit import layout
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.domain.records import VolumeRecord
from rekindle_inference.ports import MaskProvenance, Segmentations, SegmentationSource
from rekindle_inference.state import State, UnitOfWork
from rekindle_inference.usecases.checks import check_organs, load_volume, require_volume


class WithSegmentations(Protocol):
    """What writing needs; several records of use cases have it."""

    @property
    def state(self) -> State: ...

    @property
    def objects(self) -> Objects: ...

    @property
    def segmentations(self) -> Segmentations: ...

    @property
    def max_voxels(self) -> int: ...


def write_segmentation(
    tools: WithSegmentations,
    record: VolumeRecord,
    organs: tuple[Organ, ...],
    folder: Path,
    cancellation: Cancellation,
) -> Path:
    """A stored mask as DICOM SEG in `folder`, the same bytes each time; `organs` replace those it was made with.

    InvalidInput: NOT_A_MASK, NO_DICOM_SOURCE, ORGANS_UNKNOWN, NO_ORGAN_CODE, MISSING_TAG.
    """
    if record.kind is not VolumeKind.MASK or record.image_volume_id is None:
        raise InvalidInput("the volume is an image: only masks are written as DICOM SEG", reason="NOT_A_MASK")
    with tools.state.read() as uow:
        image = require_volume(uow, record.project_id, record.image_volume_id, field="image_volume_id")
        origin = _origin(uow, record)
    if image.original_format is not FileFormat.DICOM:
        raise no_dicom_source()
    meant = check_organs(organs) if organs else record.organs or (origin.model.organs if origin.model else ())
    mask = load_volume(tools.objects, record.canonical_digest, tools.max_voxels)
    check_named(meant, mask.voxels)
    source = SegmentationSource(
        path=_original(tools.objects, image, folder), series_instance_uid=image.source.series_instance_uid
    )
    return tools.segmentations.write(source, mask, meant, origin, folder, cancellation)


def check_named(organs: tuple[Organ, ...], voxels: NDArray[np.uint8]) -> None:
    """InvalidInput (ORGANS_UNKNOWN) unless every label value but 0 belongs to an organ."""
    values = {int(value) for value in np.flatnonzero(np.bincount(voxels.ravel(), minlength=256))}
    unnamed = sorted(values - {0} - {organ.label_value for organ in organs})
    if unnamed or not organs:
        listed = ", ".join(str(value) for value in unnamed[:16]) or "its segments"
        raise InvalidInput(
            f"nothing says which organs the mask's values mean ({listed}): give organs with the request",
            reason="ORGANS_UNKNOWN",
        )


def no_dicom_source() -> InvalidInput:
    """What to raise for a DICOM SEG of an image that did not come from DICOM."""
    return InvalidInput(
        "the image did not come from DICOM, so a DICOM SEG has nothing to refer to: ask for NIfTI, NRRD or MetaImage",
        reason="NO_DICOM_SOURCE",
    )


def _origin(uow: UnitOfWork, record: VolumeRecord) -> MaskProvenance:
    receipt = uow.receipts.of_mask(record.project_id, record.volume_id)
    if receipt is None:
        model = uow.models.of_mask(record.project_id, record.volume_id)
        return MaskProvenance(is_corrected=False, model=model, created_at=record.created_at)
    coarse = receipt.coarse_mask_volume_id
    model = None if coarse is None else uow.models.of_mask(record.project_id, coarse)
    return MaskProvenance(is_corrected=True, model=model, created_at=record.created_at)


def _original(objects: Objects, image: VolumeRecord, folder: Path) -> Path:
    path = folder / "original"
    try:
        with objects.open(layout.original(image.original_digest)) as stored, path.open("wb") as file:
            shutil.copyfileobj(stored, file, 1024 * 1024)
    except NotFound:
        raise InvalidInput(
            "the DICOM files that the image came from are no longer stored: ask for NIfTI, NRRD or MetaImage",
            reason="NO_DICOM_SOURCE",
        ) from None
    return path
