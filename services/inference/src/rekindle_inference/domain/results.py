"""Results: masks that are delivered for an image, and which takes the place of which."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import NewType

from rekindle.vocabulary import OrganQuality, SourceReference

from rekindle_inference.domain.abstention import Abstention
from rekindle_inference.domain.records import ModelVersionId, ProjectId, VolumeId

ResultId = NewType("ResultId", str)


class ResultOrigin(StrEnum):
    MODEL = "model"
    CORRECTED = "corrected"
    REVIEWED = "reviewed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One delivered mask. Immutable."""

    result_id: ResultId
    project_id: ProjectId
    #: Place in the project's feed.
    cursor: int
    image_volume_id: VolumeId
    mask_volume_id: VolumeId
    origin: ResultOrigin
    model_version_id: ModelVersionId | None = None
    supersedes_result_id: ResultId | None = None
    #: A person's result that stands although this model's one is newer.
    outranked_by_result_id: ResultId | None = None
    retracted: bool = False
    #: Whether it was the newest word on its image when it came.
    leads: bool
    quality: tuple[OrganQuality, ...] = ()
    abstentions: tuple[Abstention, ...] = ()
    segmentation_id: str | None = None
    submission_id: str | None = None
    created_at: datetime
    #: Of the image, read with the result and never stored in it.
    source: SourceReference = field(default_factory=SourceReference)


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a new result stands among those of its image."""

    supersedes: ResultId | None = None
    outranked_by: ResultId | None = None
    leads: bool


def place_mask(head: Result | None, origin: ResultOrigin) -> Place:
    """A new mask beside the newest word on its image.

    A person's mask takes the place of anything; a model's one never takes a person's, unless that was taken back.
    """
    if head is None:
        return Place(leads=True)
    by_person = head.origin is not ResultOrigin.MODEL and not head.retracted
    if origin is ResultOrigin.MODEL and by_person:
        return Place(outranked_by=head.result_id, leads=False)
    return Place(supersedes=head.result_id, leads=True)


def place_retraction(head: Result | None, retracted: Result) -> Place:
    """Taking a mask back is the newest word only where that mask was; otherwise another one stands already."""
    is_head = head is not None and head.result_id == retracted.result_id
    return Place(supersedes=retracted.result_id, leads=is_head)


def says_already(
    head: Result | None,
    newest: Result | None,
    *,
    mask_volume_id: VolumeId,
    origin: ResultOrigin,
    retracted: bool,
) -> bool:
    """Whether the feed says what is to be published, or more (reviewed after corrected).

    `newest` is the newest result of the submission, `head` the newest word on its image. A mask that another one
    has superseded is told again: it stands again.
    """
    if newest is None or newest.retracted is not retracted:
        return False
    if retracted:
        return True
    stands = head is not None and head.result_id == newest.result_id and newest.mask_volume_id == mask_volume_id
    return stands and (newest.origin is origin or newest.origin is ResultOrigin.REVIEWED)
