"""The outbox: which label of a case stands in inference's feed of results, and which should."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from rekindle_scheduler.domain.ids import CaseId, ModelVersionId, ProjectId, SubmissionId, VolumeId
from rekindle_scheduler.domain.records import Submission


class ResultOrigin(StrEnum):
    """How a result came about."""

    CORRECTED = "corrected"
    REVIEWED = "reviewed"


@dataclass(frozen=True, kw_only=True)
class PublishedResult:
    """The result of a case that was delivered last."""

    submission_id: SubmissionId
    mask_volume_id: VolumeId
    origin: ResultOrigin
    #: Whether the result was taken back.
    retracted: bool = False


@dataclass(frozen=True, kw_only=True)
class OutboxEntry:
    """A case whose label may have to be delivered."""

    project_id: ProjectId
    case_id: CaseId
    #: Version of the case's label; grows with each change. A delivery for an older version is not the last one.
    version: int
    published: PublishedResult | None


@dataclass(frozen=True, kw_only=True)
class PublishRequest:
    """A call of inference; one version of an entry has the same call each time, so that a retry changes nothing."""

    request_id: str
    submission_id: SubmissionId
    mask_volume_id: VolumeId
    origin: ResultOrigin
    model_version_id: ModelVersionId | None = None
    retracted: bool = False

    def result(self) -> PublishedResult:
        """The result that stands once the call was made."""
        return PublishedResult(
            submission_id=self.submission_id,
            mask_volume_id=self.mask_volume_id,
            origin=self.origin,
            retracted=self.retracted,
        )


def decide_request(entry: OutboxEntry, counting: Submission | None) -> PublishRequest | None:
    """The call after which the label that counts stands, or none does; None where that is so already."""
    last = entry.published
    if counting is None:
        if last is None or last.retracted:
            return None
        return PublishRequest(
            request_id=_request_id(entry, last.submission_id, "retracted"),
            submission_id=last.submission_id,
            mask_volume_id=last.mask_volume_id,
            origin=last.origin,
            retracted=True,
        )
    origin = ResultOrigin.CORRECTED if counting.reviewed_by is None else ResultOrigin.REVIEWED
    request = PublishRequest(
        request_id=_request_id(entry, counting.submission_id, origin),
        submission_id=counting.submission_id,
        mask_volume_id=counting.mask_volume_id,
        origin=origin,
        model_version_id=counting.coarse_model_version_id,
    )
    return None if request.result() == last else request


def _request_id(entry: OutboxEntry, submission_id: SubmissionId, what: str) -> str:
    """The id of the call, the same for each retry.

    It names the result before it. A delayed delivery of an older result then leads to a call with a new id, which
    inference does not take for a retry.
    """
    request_id = f"{submission_id}.{what}.{entry.version}"
    last = entry.published
    if last is None:
        return request_id
    return f"{request_id}.{last.submission_id}.{'retracted' if last.retracted else last.origin}"
