"""What the service keeps: volumes, receipts, model versions, predictions. Immutable once written."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NewType

from rekindle_imaging.geometry import Geometry

ProjectId = NewType("ProjectId", str)
VolumeId = NewType("VolumeId", str)
ReceiptId = NewType("ReceiptId", str)
ModelVersionId = NewType("ModelVersionId", str)


class VolumeKind(StrEnum):
    IMAGE = "image"
    MASK = "mask"


class FileFormat(StrEnum):
    NIFTI = "nifti"
    NRRD = "nrrd"
    METAIMAGE = "metaimage"
    DICOM = "dicom"
    DICOM_SEG = "dicom_seg"


class Modality(StrEnum):
    CT = "CT"
    MR = "MR"


class ModelRole(StrEnum):
    IGNITER = "igniter"
    SUSTAINER = "sustainer"


@dataclass(frozen=True, slots=True, kw_only=True)
class CodedConcept:
    """A concept of a coding scheme, for example SNOMED CT 10200004 "Liver"."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Organ:
    """One class of a project."""

    id: str
    #: 1 to 255: the organ's value in mask files.
    label_value: int
    code: CodedConcept | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceReference:
    """Where a volume came from. Never written to logs."""

    study_instance_uid: str = ""
    series_instance_uid: str = ""
    frame_of_reference_uid: str = ""
    sop_instance_uids: tuple[str, ...] = ()
    accession_number: str = ""


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
class OrganEffort:
    """How much one organ of a mask differs from the coarse label that it started from."""

    organ_id: str
    voxels_changed: int
    #: Vaassen 2020, tolerance 3 mm.
    added_path_length_mm: float
    #: None when both masks are empty.
    dice: float | None
    components_removed: int


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
class OrganQuality:
    """What a prediction says of itself, for one organ, without the truth."""

    organ_id: str
    #: None when nothing is predicted.
    soft_dice_confidence: float | None
    predicted_ml: float
    boundary_length_mm: float
    components: int
    #: Slices that show the organ.
    slices: int


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
