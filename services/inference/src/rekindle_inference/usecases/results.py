"""The feed of results: add to it, read it, and the limits below which organs are left out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from rekindle.errors import InvalidInput, NotFound, quoted_id
from rekindle.vocabulary import VolumeKind
from rekindle_imaging.package import READABLE_ORGAN_ID
from rekindle_servicekit.pages import Page, Paging

from rekindle_inference.domain.abstention import QualityLimit
from rekindle_inference.domain.records import ModelVersionId, ProjectId, VolumeId
from rekindle_inference.domain.results import Result, ResultId, ResultOrigin, place_mask, place_retraction, says_already
from rekindle_inference.state import UnitOfWork
from rekindle_inference.usecases.checks import check_project, require_volume, wrong_field
from rekindle_inference.usecases.models import require_model

_SUBMISSION_ID = re.compile(r"[A-Za-z0-9._-]{1,128}")
#: Results that a watcher is given at a time.
FEED_PAGE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishRequest:
    """A person's mask that is to be delivered, or to be taken back."""

    mask_volume_id: str
    origin: ResultOrigin
    model_version_id: str = ""
    submission_id: str = ""
    retracted: bool = False


def get_result(uow: UnitOfWork, project_id: str, result_id: str) -> Result:
    """NotFound where it does not exist in the project."""
    return _require(uow, check_project(project_id), result_id)


def list_results(uow: UnitOfWork, project_id: str, volume_id: str, paging: Paging) -> Page[Result]:
    """The results of one image, newest first; the place of one is its cursor. NotFound for an unknown image."""
    (before,) = paging.after
    image = require_volume(uow, check_project(project_id), volume_id, field="volume_id")
    rows = uow.results.of_image(image.project_id, image.volume_id, before=before or None, limit=paging.limit)
    return paging.page(rows, lambda result: [result.cursor])


def results_after(uow: UnitOfWork, project_id: str, cursor: int) -> list[Result]:
    """Those that come next in the project's feed; InvalidInput for a cursor below 0."""
    if cursor < 0:
        raise wrong_field("after_cursor", "must be 0, or the cursor of a result")
    return uow.results.after(check_project(project_id), cursor, limit=FEED_PAGE)


def publish_result(uow: UnitOfWork, project_id: str, publication: PublishRequest) -> Result:
    """Add a person's mask to the feed, or its withdrawal; what the feed says already is answered, not repeated.

    NotFound (mask, model version, RESULT_NOT_FOUND), InvalidInput.
    """
    project = check_project(project_id)
    _check_publication(publication)
    mask = require_volume(uow, project, publication.mask_volume_id, field="mask_volume_id")
    if mask.kind is not VolumeKind.MASK or mask.image_volume_id is None:
        raise wrong_field("mask_volume_id", "names an image: name the mask that was submitted")
    if publication.model_version_id:
        require_model(uow, project, publication.model_version_id)
    return _publish(uow, project, mask.image_volume_id, publication)


def add_result(uow: UnitOfWork, result: Result) -> Result:
    """Add a mask to the feed; its cursor, and its place among the others of its image, are decided here."""
    uow.results.lock_feed(result.project_id)
    place = place_mask(uow.results.head(result.project_id, result.image_volume_id), result.origin)
    placed = replace(
        result,
        cursor=uow.results.next_cursor(result.project_id),
        supersedes_result_id=place.supersedes,
        outranked_by_result_id=place.outranked_by,
        leads=place.leads,
    )
    uow.results.add(placed)
    return placed


def get_limits(uow: UnitOfWork, project_id: str) -> list[QualityLimit]:
    """Quality limits of a project, by organ."""
    return uow.limits.of_project(check_project(project_id))


def set_limits(uow: UnitOfWork, project_id: str, limits: Sequence[QualityLimit]) -> None:
    """Replace all limits of a project. InvalidInput names the limit that is wrong."""
    project = check_project(project_id)
    _check_limits(limits)
    _check_predicted(uow, project, limits)
    uow.limits.replace(project, limits)


def _publish(uow: UnitOfWork, project: ProjectId, image: VolumeId, publication: PublishRequest) -> Result:
    uow.results.lock_feed(project)
    newest = uow.results.newest_of_submission(project, publication.submission_id)
    mask = VolumeId(publication.mask_volume_id)
    head = uow.results.head(project, image)
    if newest is not None and says_already(
        head, newest, mask_volume_id=mask, origin=publication.origin, retracted=publication.retracted
    ):
        return newest
    if publication.retracted:
        if newest is None:
            raise NotFound(
                "nothing was published of this submission, so there is nothing to take back", reason="RESULT_NOT_FOUND"
            )
        place = place_retraction(head, newest)
    else:
        place = place_mask(head, publication.origin)
    result = Result(
        result_id=ResultId(str(uuid4())),
        project_id=project,
        cursor=uow.results.next_cursor(project),
        image_volume_id=image,
        mask_volume_id=mask,
        origin=publication.origin,
        model_version_id=ModelVersionId(publication.model_version_id) if publication.model_version_id else None,
        supersedes_result_id=place.supersedes,
        retracted=publication.retracted,
        leads=place.leads,
        submission_id=publication.submission_id,
        created_at=uow.now,
    )
    uow.results.add(result)
    # Read again, with the image's source.
    return _require(uow, project, result.result_id)


def _require(uow: UnitOfWork, project: ProjectId, result_id: str) -> Result:
    found = uow.results.get(project, ResultId(result_id))
    if found is None:
        raise NotFound(f"there is no result {quoted_id(result_id)} in this project", reason="RESULT_NOT_FOUND")
    return found


def _check_publication(publication: PublishRequest) -> None:
    if publication.origin is ResultOrigin.MODEL:
        raise wrong_field("origin", "must be corrected or reviewed: a model's masks come from segmentations")
    if _SUBMISSION_ID.fullmatch(publication.submission_id) is None:
        raise wrong_field(
            "submission_id", "must be 1 to 128 letters, digits, dots, dashes and underscores: the submission's id"
        )


def _check_limits(limits: Sequence[QualityLimit]) -> None:
    for index, limit in enumerate(limits):
        if READABLE_ORGAN_ID.fullmatch(limit.organ_id) is None:
            raise wrong_field(f"limits[{index}].organ_id", "must be the id of one of the project's organs")
        # Also refuses what is no number.
        if not 0.0 <= limit.min_soft_dice_confidence <= 1.0:
            raise wrong_field(f"limits[{index}].min_soft_dice_confidence", "must be 0 to 1")
    if len({limit.organ_id for limit in limits}) < len(limits):
        raise wrong_field("limits", "must name each organ once")


def _check_predicted(uow: UnitOfWork, project: ProjectId, limits: Sequence[QualityLimit]) -> None:
    """A misspelt organ would never be limited; told where the project has a model that knows its organs."""
    models = uow.models.page(project, limit=1, before_version=None)
    if not models:
        return
    known = [organ.id for organ in models[0].organs]
    for index, limit in enumerate(limits):
        if limit.organ_id not in known:
            raise InvalidInput(
                f"limits[{index}].organ_id is no organ of this project: it has {', '.join(known)}",
                reason="UNKNOWN_ORGAN",
            )
