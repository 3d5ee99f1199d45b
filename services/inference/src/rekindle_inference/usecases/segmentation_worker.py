"""The worker of durable segmentations: claim one, carry it out, end it exactly once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

from rekindle.errors import (
    Cancelled,
    CapacityExceeded,
    DeadlineExceeded,
    DependencyUnavailable,
    ModelNotReady,
    NotFound,
    RekindleError,
)
from rekindle.vocabulary import VolumeKind
from rekindle_imaging import canonical
from rekindle_imaging.volume import Volume
from rekindle_servicekit import layout
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.domain import segmentations as domain
from rekindle_inference.domain.abstention import Abstention, decide_abstentions, kept_organs, without_organs
from rekindle_inference.domain.records import ModelVersion, Prediction, VolumeId
from rekindle_inference.domain.results import Result, ResultId, ResultOrigin
from rekindle_inference.domain.segmentations import Priority, Segmentation
from rekindle_inference.state import UnitOfWork
from rekindle_inference.usecases.checks import (
    drop_if_erased,
    keep_stored,
    load_volume,
    require_volume,
)
from rekindle_inference.usecases.models import require_model
from rekindle_inference.usecases.predictions import Predictions, made_mask, predict_volume
from rekindle_inference.usecases.results import add_result
from rekindle_inference.usecases.segmentation import Progress

_log = logging.getLogger(__name__)

#: What passes: tried again until the time to live is over.
_PASSING = (DependencyUnavailable, CapacityExceeded, DeadlineExceeded)
_EXPIRED_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """A segmentation that this process works on, until its claim is lost."""

    segmentation: Segmentation
    model: ModelVersion
    #: Token of the claim; only the holder of the newest one may write.
    token: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Reduced:
    """A stored mask that lacks organs, in its canonical form."""

    digest: str
    data: bytes


def take_next(work: Predictions, priorities: Iterable[Priority], claim_for: timedelta) -> Claim | None:
    """Take up the first that may be started now, among these priorities; None where there is none.

    On the way those are ended whose time is over, and those that cannot be started any more.
    """
    wanted = list(priorities)
    while True:
        with work.state.write() as uow:
            for late in uow.segmentations.lock_expired(_EXPIRED_AT_ONCE):
                uow.segmentations.update(domain.expire(late, uow.now))
            found = uow.segmentations.lock_next(wanted) if wanted else None
            if found is None:
                return None
            claim = _take(uow, found, claim_for)
        if claim is not None:
            return claim


def extend_claims(
    work: Predictions, held: Iterable[tuple[Claim, tuple[int, int]]], claim_for: timedelta
) -> list[Claim]:
    """Extend the claims on what is worked on, noting progress; those that are lost: cancelled, or taken over."""
    with work.state.write() as uow:
        until = uow.now + claim_for
        return [
            claim
            for claim, progress in held
            if not uow.segmentations.extend_claim(claim.segmentation.segmentation_id, claim.token, until, progress)
        ]


def carry_out(work: Predictions, claim: Claim, cancellation: Cancellation, on_progress: Progress) -> None:
    """Predict, and end the segmentation with what came of it; nothing is raised for what went wrong with it.

    Called off, it goes back into the queue, unless its claim is lost.
    """
    slices = 0

    def note(done: int, total: int) -> None:
        nonlocal slices
        slices = total
        on_progress(done, total)

    try:
        prediction = predict_volume(
            work,
            claim.model,
            claim.segmentation.volume_id,
            cancellation,
            priority=claim.segmentation.priority,
            on_progress=note,
        )
        _deliver(work, claim, prediction, slices)
    except Cancelled:
        _change(work, claim, lambda current, _: domain.put_back(current))
    except _PASSING as error:
        _postpone(work, claim, error)
    except RekindleError as error:
        reason, message = error.reason, error.message
        _change(work, claim, lambda current, uow: domain.fail(current, uow.now, reason=reason, message=message))
    except Exception:
        _note_incident(work, claim)


def _take(uow: UnitOfWork, found: Segmentation, claim_for: timedelta) -> Claim | None:
    """Start it; None where it had to be ended instead."""
    if domain.is_worn_out(found):
        message = f"the service ended or failed {found.attempts} times while it worked on this volume"
        uow.segmentations.update(domain.fail(found, uow.now, reason="WORN_OUT", message=message))
        return None
    # A version that was recorded before stays, so that all that was ever told of it is of one version.
    version = found.model_version_id or found.requested_model_version_id
    try:
        model = require_model(uow, found.project_id, version)
    except (NotFound, ModelNotReady) as error:
        uow.segmentations.update(domain.fail(found, uow.now, reason=error.reason, message=error.message))
        return None
    token = str(uuid4())
    started = domain.start(
        found,
        model_version_id=model.model_version_id,
        claim=token,
        now=uow.now,
        until=uow.now + claim_for,
    )
    uow.segmentations.update(started)
    return Claim(segmentation=started, model=model, token=token)


def _deliver(work: Predictions, claim: Claim, prediction: Prediction, slices: int) -> None:
    """Make the result and end the segmentation, both or neither; only while the claim holds."""
    with work.state.read() as uow:
        image = require_volume(uow, claim.model.project_id, prediction.image_volume_id, field="volume_id")
        limits = uow.limits.of_project(claim.model.project_id)
    abstentions = decide_abstentions(prediction.quality, limits)
    reduced = _store_reduced(work, claim.model, prediction, abstentions) if abstentions else None

    def deliver(current: Segmentation, uow: UnitOfWork) -> Segmentation:
        mask_volume_id = prediction.mask_volume_id
        if reduced is not None:
            mask = made_mask(image, kept_organs(claim.model.organs, abstentions), reduced.digest, uow.now)
            uow.volumes.add(mask)
            keep_stored(work.objects, layout.canonical(reduced.digest), reduced.data)
            mask_volume_id = mask.volume_id
        result = _result(uow, claim, prediction, mask_volume_id, abstentions)
        return domain.succeed(current, add_result(uow, result).result_id, uow.now, slices=slices)

    if not _change(work, claim, deliver) and reduced is not None:
        # Where the image was erased meanwhile, no mask of it may stay either.
        drop_if_erased(work.state, work.objects, image, canonical_digest=reduced.digest)


def _store_reduced(
    work: Predictions, model: ModelVersion, prediction: Prediction, abstentions: tuple[Abstention, ...]
) -> _Reduced:
    """The predicted mask without the organs left out, once it is in the object store."""
    whole = load_volume(work.objects, prediction.mask_digest, work.max_voxels)
    mask = Volume(without_organs(whole.voxels, model.organs, abstentions), whole.geometry)
    data = canonical.encode(mask, VolumeKind.MASK.value)
    digest = canonical.digest(data)
    work.objects.put(layout.canonical(digest), data)
    return _Reduced(digest=digest, data=data)


def _result(
    uow: UnitOfWork,
    claim: Claim,
    prediction: Prediction,
    mask_volume_id: VolumeId,
    abstentions: tuple[Abstention, ...],
) -> Result:
    return Result(
        result_id=ResultId(str(uuid4())),
        project_id=claim.segmentation.project_id,
        cursor=0,  # decided when it is added, as is its place
        leads=False,
        image_volume_id=prediction.image_volume_id,
        mask_volume_id=mask_volume_id,
        origin=ResultOrigin.MODEL,
        model_version_id=claim.model.model_version_id,
        quality=prediction.quality,
        abstentions=abstentions,
        segmentation_id=claim.segmentation.segmentation_id,
        created_at=uow.now,
    )


def _postpone(work: Predictions, claim: Claim, error: RekindleError) -> None:
    """Back into the queue for a while; it expires there if what is away does not come back."""
    reason = f"waits for what is away: {error.message}"
    _log.warning("a segmentation waits: %s", error, extra={"action": "segmentation.waiting", "reason": error.reason})
    _change(
        work,
        claim,
        lambda current, uow: domain.put_back(current, reason=reason, not_before=uow.now + domain.RETRY_AFTER),
    )


def _note_incident(work: Predictions, claim: Claim) -> None:
    """What nobody foresaw goes to the log; tried again a few times, as a service that ended would be."""
    incident_id = uuid4().hex
    _log.exception("incident %s", incident_id, extra={"action": "incident", "incident_id": incident_id})
    message = f"it failed: the service's log has the details as incident {incident_id}"

    def after(current: Segmentation, uow: UnitOfWork) -> Segmentation:
        if domain.is_worn_out(current):
            return domain.fail(current, uow.now, reason="INTERNAL_ERROR", message=message)
        later = uow.now + domain.RETRY_AFTER
        return domain.put_back(current, reason=message, not_before=later, counted=True)

    _change(work, claim, after)


def _change(work: Predictions, claim: Claim, change: Callable[[Segmentation, UnitOfWork], Segmentation]) -> bool:
    """Write what becomes of a segmentation; False where somebody has cancelled it, taken it over or erased it."""
    with work.state.write() as uow:
        current = uow.segmentations.lock(claim.segmentation.segmentation_id)
        if current is None or current.claim != claim.token:
            return False
        uow.segmentations.update(change(current, uow))
    return True
