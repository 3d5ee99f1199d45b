"""Results: masks that are delivered for an image, and organs that were left out of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import datetime

from rekindle._services import Services
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import segmentations_pb2 as segmentations
from rekindle.convert import from_proto
from rekindle.formats import FormatName
from rekindle.records import moment
from rekindle.vocabulary import OrganQuality
from rekindle.volumes import VolumeFile, download


@dataclass(frozen=True, kw_only=True)
class Abstention:
    """An organ that a result says nothing about, rather than passing a doubtful mask on."""

    organ_id: str
    #: Confidence of the organ; None when nothing was found.
    soft_dice_confidence: float | None
    limit: float
    #: "low-confidence" or "nothing-found".
    reason: str
    message: str

    @classmethod
    def from_proto(cls, message: inference.Abstention) -> Abstention:
        return from_proto(message, cls)


@dataclass(frozen=True, kw_only=True)
class QualityLimit:
    """The quality below which an organ is left out of results."""

    #: Least confidence, 0 to 1; an organ exactly at the limit is passed on.
    least: float
    #: Whether an organ that was not found is left out too, rather than taken as not there.
    abstain_when_nothing_found: bool = False


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where an image came from, for finding it in an archive."""

    study_instance_uid: str
    series_instance_uid: str
    accession_number: str


@dataclass(frozen=True, kw_only=True)
class Result:
    """A mask that is delivered for an image. Immutable."""

    id: str
    #: Place in the project's feed; keep the one of the last result that you have handled.
    cursor: int
    project_id: str
    #: Volume id of the image.
    volume_id: str
    mask_volume_id: str
    #: "model", "corrected" or "reviewed".
    origin: str
    model_version_id: str
    #: Result that this one replaces; empty for the first.
    supersedes: str
    #: Result of a person that stands although this one of a model is newer; show that one.
    outranked_by: str
    #: Whether the mask has been retracted; remove it then.
    retracted: bool
    quality: tuple[OrganQuality, ...]
    #: Organs that were left out of the mask, with the reason.
    abstentions: tuple[Abstention, ...]
    source: Source
    segmentation_id: str
    submission_id: str
    created: datetime | None
    services: Services = field(repr=False, compare=False)

    @classmethod
    def from_proto(cls, message: segmentations.Result, services: Services) -> Result:
        return from_proto(
            message,
            cls,
            id=message.result_id,
            supersedes=message.supersedes_result_id,
            outranked_by=message.outranked_by_result_id,
            source=from_proto(message.source, Source),
            created=moment(message, "create_time"),
            services=services,
        )

    def mask(self, format: FormatName = "nifti") -> VolumeFile:
        """Downloads the mask; of DICOM images also as "dicom-seg"."""
        return download(self.services, self.project_id, self.mask_volume_id, format=format)

    def describe(self) -> dict[str, object]:
        """As plain data, for JSON."""
        nested = {
            "quality": [asdict(item) for item in self.quality],
            "abstentions": [asdict(item) for item in self.abstentions],
            "source": asdict(self.source),
            "created": self.created.isoformat() if self.created else None,
        }
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__ if name != "services"}
        return {**plain, **nested}
