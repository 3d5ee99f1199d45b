"""What the service keeps: volumes, receipts, model versions, predictions. Immutable once written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import NewType

from rekindle.vocabulary import (
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

ProjectId = NewType("ProjectId", str)
VolumeId = NewType("VolumeId", str)
ReceiptId = NewType("ReceiptId", str)
ModelVersionId = NewType("ModelVersionId", str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why something could not be taken; the same words as an error's."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumeRecord:
    """An ingested image or mask, or a mask that was predicted."""

    volume_id: VolumeId
    project_id: ProjectId
    kind: VolumeKind
    geometry: Geometry
    #: SHA-256 of the bytes that were sent; empty for a predicted mask.
    original_digest: str
    #: SHA-256 of the canonical object.
    canonical_digest: str
    original_format: FileFormat
    source: SourceReference
    created_at: datetime
    #: For masks: the image whose grid it lies on.
    image_volume_id: VolumeId | None = None
    #: For images.
    modality: Modality | None = None
    #: For masks: what their values mean; empty for masks from before this was kept.
    organs: tuple[Organ, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class OrganFound:
    organ_id: str
    voxels: int
    volume_ml: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What the service says of an uploaded mask."""

    receipt_id: ReceiptId
    project_id: ProjectId
    mask_volume_id: VolumeId
    image_volume_id: VolumeId
    mask_digest: str
    image_digest: str
    #: None when the annotator drew from nothing.
    coarse_mask_volume_id: VolumeId | None
    organs: tuple[OrganFound, ...]
    effort: tuple[OrganEffort, ...]
    created_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A package that serves, or has served, a project."""

    model_version_id: ModelVersionId
    project_id: ProjectId
    role: ModelRole
    #: 1, 2, 3, ... within the project.
    version: int
    package_digest: str
    organs: tuple[Organ, ...]
    modality: Modality
    created_at: datetime
    weights_digest: str = ""
    snapshot_digest: str = ""
    #: Whether it has learnt from volumes that were erased since, or began with weights that had.
    trained_on_purged: bool = False
    #: Whether the project's pointer is on it, at the time of reading.
    active: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Prediction:
    """One image predicted with one model version: at most one of these exists."""

    model_version_id: ModelVersionId
    image_volume_id: VolumeId
    mask_volume_id: VolumeId
    mask_digest: str
    quality: tuple[OrganQuality, ...]
    predicted_minutes: float
    created_at: datetime
