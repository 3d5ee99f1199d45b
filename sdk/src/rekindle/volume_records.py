"""What the service knows of stored volumes, and of uploaded masks."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.convert import from_proto, name_of
from rekindle.formats import FormatName, format_name
from rekindle.vocabulary import OrganEffort, SourceReference


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """Where the voxels of a volume lie, in LPS coordinates."""

    #: Voxels along i, j, k.
    size: tuple[int, ...]
    #: Millimetres between voxel centres along i, j, k.
    spacing_mm: tuple[float, ...]
    #: LPS position of the centre of voxel (0, 0, 0), in millimetres.
    origin_mm: tuple[float, ...]
    #: 3 x 3, row-major; column c is the LPS direction of axis c.
    direction: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Volume:
    """A stored image or mask."""

    volume_id: str
    project_id: str
    #: "image" or "mask".
    kind: str
    geometry: Geometry
    #: SHA-256 of the bytes that were sent.
    original_digest: str
    #: SHA-256 of the canonical object.
    canonical_digest: str
    #: Format of the file that was sent.
    original_format: FormatName
    #: DICOM identifiers; lists of volumes leave its SOP instances out.
    source: SourceReference
    create_time: datetime | None
    #: Image whose grid a mask lies on; empty for images.
    image_volume_id: str
    #: "CT" or "MR"; "UNSPECIFIED" for masks.
    modality: str

    @classmethod
    def from_proto(cls, message: volumes.Volume) -> Volume:
        return from_proto(
            message,
            cls,
            geometry=from_proto(message.geometry, Geometry),
            source=from_proto(message.source, SourceReference),
            original_format=format_name(message.original_format),
            modality=name_of(common.Modality, message.modality).upper(),
        )


@dataclass(frozen=True, kw_only=True)
class OrganFound:
    """One label value of a mask, as the service counted it."""

    organ_id: str
    voxels: int
    volume_ml: float


@dataclass(frozen=True, kw_only=True)
class Receipt:
    """What the service found in an uploaded mask."""

    receipt_id: str
    project_id: str
    mask_volume_id: str
    image_volume_id: str
    #: SHA-256 of the canonical mask.
    mask_digest: str
    #: SHA-256 of the canonical image.
    image_digest: str
    #: Coarse label that the mask corrects; empty where it was drawn from nothing.
    coarse_mask_volume_id: str
    organs: tuple[OrganFound, ...]
    #: Effort against the coarse label, or against an empty one.
    effort: tuple[OrganEffort, ...]
    create_time: datetime | None

    @classmethod
    def from_proto(cls, message: volumes.Receipt) -> Receipt:
        return from_proto(message, cls)


@dataclass(frozen=True, kw_only=True)
class Series:
    """What became of one series of a study."""

    series_instance_uid: str
    #: DICOM modality as the files say it, for example "CT" or "SR".
    modality: str
    #: Volume that it became; empty if it became none.
    volume_id: str = ""
    #: Reason why it became no volume; empty if it became one.
    reason: str = ""
    message: str = ""

    @classmethod
    def from_proto(cls, outcome: volumes.SeriesOutcome) -> Series:
        return from_proto(
            outcome,
            cls,
            volume_id=outcome.volume.volume_id,
            reason=outcome.failure.reason,
            message=outcome.failure.message,
        )


@dataclass(frozen=True, kw_only=True)
class UploadOutcome:
    """What became of an upload in pieces."""

    #: Volume of an image or a mask; None for a study.
    volume: Volume | None
    #: Receipt of a mask; None otherwise.
    receipt: Receipt | None
    #: Series of a study.
    series: tuple[Series, ...]

    @classmethod
    def from_proto(cls, message: volumes.FinalizeUploadResponse) -> UploadOutcome:
        return cls(
            volume=Volume.from_proto(message.volume) if message.HasField("volume") else None,
            receipt=Receipt.from_proto(message.receipt) if message.HasField("receipt") else None,
            series=tuple(Series.from_proto(item) for item in message.series),
        )
