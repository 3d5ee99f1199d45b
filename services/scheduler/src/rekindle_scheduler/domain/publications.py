"""Publications: which label of a case has been delivered as a result, and which should be."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rekindle_scheduler.domain.ids import CaseId, ModelVersionId, ProjectId, SubmissionId, VolumeId
from rekindle_scheduler.domain.records import Submission


class PublicationOrigin(StrEnum):
    CORRECTED = "corrected"
    REVIEWED = "reviewed"


@dataclass(frozen=True, kw_only=True)
class Published:
    """What was delivered last."""

    submission_id: SubmissionId
    mask_volume_id: VolumeId
    origin: PublicationOrigin
    #: What was delivered has been taken back since.
    retracted: bool = False


@dataclass(frozen=True, kw_only=True)
class Publication:
    """What is owed of one case."""

    project_id: ProjectId
    case_id: CaseId
    #: Grows whenever something may have to be delivered: what was carried out for an older one is not the last word.
    version: int
    published: Published | None


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """A call to make, the same however often it is decided for one version of a publication after what was last."""

    request_id: str
    submission_id: SubmissionId
    mask_volume_id: VolumeId
    origin: PublicationOrigin
    model_version_id: ModelVersionId | None = None
    retracted: bool = False

    def published(self) -> Published:
        """What has been delivered once it was made."""
        return Published(
            submission_id=self.submission_id,
            mask_volume_id=self.mask_volume_id,
            origin=self.origin,
            retracted=self.retracted,
        )


def decide_delivery(publication: Publication, counting: Submission | None) -> Delivery | None:
    """What has to be delivered so that the label that counts stands, or none; None where that is so already."""
    last = publication.published
    if counting is None:
        if last is None or last.retracted:
            return None
        return Delivery(
            request_id=_request_id(publication, last.submission_id, "retracted"),
            submission_id=last.submission_id,
            mask_volume_id=last.mask_volume_id,
            origin=last.origin,
            retracted=True,
        )
    origin = PublicationOrigin.CORRECTED if counting.reviewed_by is None else PublicationOrigin.REVIEWED
    delivery = Delivery(
        request_id=_request_id(publication, counting.submission_id, origin),
        submission_id=counting.submission_id,
        mask_volume_id=counting.mask_volume_id,
        origin=origin,
        model_version_id=counting.coarse_model_version_id,
    )
    return None if delivery.published() == last else delivery


def _request_id(publication: Publication, submission_id: SubmissionId, what: str) -> str:
    """The same for the same step, and another one where an older delivery has come late and must be outdone."""
    request_id = f"{submission_id}.{what}.{publication.version}"
    last = publication.published
    if last is None:
        return request_id
    return f"{request_id}.{last.submission_id}.{'retracted' if last.retracted else last.origin}"
