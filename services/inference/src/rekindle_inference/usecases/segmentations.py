"""Durable segmentations: ask for one, look at it, call it off."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from rekindle.errors import CapacityExceeded, NotFound, quoted_id
from rekindle_servicekit.pages import Page, Paging

from rekindle_inference.domain import segmentations as domain
from rekindle_inference.domain.records import ModelVersionId, ProjectId, VolumeId
from rekindle_inference.domain.segmentations import (
    Priority,
    Segmentation,
    SegmentationId,
    SegmentationState,
    queue_place,
)
from rekindle_inference.state import UnitOfWork
from rekindle_inference.usecases.checks import check_project, place_of, require_volume, wrong_field
from rekindle_inference.usecases.models import require_model
from rekindle_inference.usecases.predictions import check_fits

_QUEUE_RETRY_S = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueRules:
    """How long the queue may be, and how long one may wait in it."""

    #: Queued segmentations of one project and priority.
    most: int
    time_to_live: timedelta
    longest_time_to_live: timedelta
    #: How much later BATCH stands in the line of ROUTINE than it came.
    batch_patience: timedelta


@dataclass(frozen=True, slots=True, kw_only=True)
class CreateSegmentation:
    """What a client asks for."""

    volume_id: str
    #: Version to predict with; None for whichever is active when work begins.
    model_version_id: str | None
    priority: Priority = Priority.ROUTINE
    #: Time until it is not worth starting any more; None for the default.
    time_to_live: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentationView:
    """A segmentation and its place in the queue; 0 where it is not queued."""

    segmentation: Segmentation
    position: int


def create_segmentation(
    uow: UnitOfWork, rules: QueueRules, project_id: str, request: CreateSegmentation
) -> SegmentationId:
    """Put one image into the queue.

    InvalidInput, NotFound, ModelNotReady; CapacityExceeded (QUEUE_FULL) with the time to wait.
    """
    project = check_project(project_id)
    segmentation = _new(uow, rules, project, request, _time_to_live(rules, request.time_to_live))
    uow.segmentations.add(segmentation)
    return segmentation.segmentation_id


def get_segmentation(uow: UnitOfWork, project_id: str, segmentation_id: str) -> SegmentationView:
    """NotFound where it does not exist in the project."""
    segmentation = _require(uow, check_project(project_id), segmentation_id)
    places = uow.segmentations.positions([segmentation.segmentation_id])
    return SegmentationView(segmentation=segmentation, position=places.get(segmentation.segmentation_id, 0))


def list_segmentations(
    uow: UnitOfWork, project_id: str, *, states: frozenset[SegmentationState], volume_id: str, paging: Paging
) -> Page[SegmentationView]:
    """Newest first; of some states and of one image where these are given. The place of one is moment and id."""
    rows = uow.segmentations.page(
        check_project(project_id),
        states=states,
        volume_id=VolumeId(volume_id) if volume_id else None,
        after=place_of(paging),
        limit=paging.limit,
    )
    page = paging.page(rows, lambda row: [row.created_at.isoformat(), row.segmentation_id])
    places = uow.segmentations.positions(segmentation.segmentation_id for segmentation in page.items)
    views = [SegmentationView(segmentation=item, position=places.get(item.segmentation_id, 0)) for item in page.items]
    return Page(views, page.next_token)


def cancel_segmentation(uow: UnitOfWork, project_id: str, segmentation_id: str) -> None:
    """End it, also while it runs: what its worker does from now on is not kept.

    NotFound, IllegalTransition where it has ended otherwise.
    """
    _require(uow, check_project(project_id), segmentation_id)
    current = uow.segmentations.lock(SegmentationId(segmentation_id))
    assert current is not None
    uow.segmentations.update(domain.cancel(current, uow.now))


def _new(
    uow: UnitOfWork, rules: QueueRules, project: ProjectId, request: CreateSegmentation, time_to_live: timedelta
) -> Segmentation:
    image = require_volume(uow, project, request.volume_id, field="volume_id")
    # Also where the active one is meant: it may be another one when work begins, but there must be one.
    check_fits(image, require_model(uow, project, request.model_version_id))
    if uow.segmentations.queued(project, request.priority) >= rules.most:
        raise CapacityExceeded(
            f"{rules.most} segmentations of priority {request.priority} are queued already: try again later",
            reason="QUEUE_FULL",
            retry_after_s=_QUEUE_RETRY_S,
        )
    lane, due_at = queue_place(request.priority, uow.now, rules.batch_patience)
    return Segmentation(
        segmentation_id=SegmentationId(str(uuid4())),
        project_id=project,
        volume_id=image.volume_id,
        requested_model_version_id=ModelVersionId(request.model_version_id) if request.model_version_id else None,
        priority=request.priority,
        lane=lane,
        due_at=due_at,
        created_at=uow.now,
        expire_at=uow.now + time_to_live,
    )


def _time_to_live(rules: QueueRules, requested: timedelta | None) -> timedelta:
    if requested is None:
        return rules.time_to_live
    if not timedelta(0) < requested <= rules.longest_time_to_live:
        most = int(rules.longest_time_to_live.total_seconds())
        raise wrong_field("time_to_live", f"must be above 0 and at most {most} seconds")
    return requested


def _require(uow: UnitOfWork, project: ProjectId, segmentation_id: str) -> Segmentation:
    segmentation = uow.segmentations.get(project, SegmentationId(segmentation_id))
    if segmentation is None:
        raise NotFound(
            f"there is no segmentation {quoted_id(segmentation_id)} in this project", reason="SEGMENTATION_NOT_FOUND"
        )
    return segmentation
