"""Abstention: which organs of a prediction are too doubtful to be passed on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from rekindle.vocabulary import Organ, OrganQuality


class AbstentionReason(StrEnum):
    LOW_CONFIDENCE = "low_confidence"
    NOTHING_FOUND = "nothing_found"


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityLimit:
    """Below which quality an organ is left out of a project's results."""

    organ_id: str
    #: 0 to 1; an organ exactly at the limit is passed on.
    min_soft_dice_confidence: float
    #: Nothing found has no confidence: False takes the organ as not there, True abstains.
    abstain_when_nothing_found: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Abstention:
    """An organ that a result says nothing about."""

    organ_id: str
    #: None when nothing was found.
    soft_dice_confidence: float | None
    limit: float
    reason: AbstentionReason
    message: str


def decide_abstentions(quality: Iterable[OrganQuality], limits: Iterable[QualityLimit]) -> tuple[Abstention, ...]:
    """The organs to leave out, in the order of `quality`."""
    by_organ = {limit.organ_id: limit for limit in limits}
    found = [_decide(item, by_organ[item.organ_id]) for item in quality if item.organ_id in by_organ]
    return tuple(abstention for abstention in found if abstention is not None)


def kept_organs(organs: Sequence[Organ], abstentions: Iterable[Abstention]) -> tuple[Organ, ...]:
    """The organs that a mask still speaks of."""
    left_out = {abstention.organ_id for abstention in abstentions}
    return tuple(organ for organ in organs if organ.id not in left_out)


def without_organs(
    voxels: NDArray[np.uint8], organs: Sequence[Organ], abstentions: Iterable[Abstention]
) -> NDArray[np.uint8]:
    """Label values (k, j, i) with the organs left out set to background; the same array where none is."""
    kept_ids = {organ.id for organ in kept_organs(organs, abstentions)}
    values = [organ.label_value for organ in organs if organ.id not in kept_ids]
    if not values:
        return voxels
    kept = np.arange(256, dtype=np.uint8)
    kept[values] = 0
    return kept[voxels]


def _decide(quality: OrganQuality, limit: QualityLimit) -> Abstention | None:
    confidence, least = quality.soft_dice_confidence, limit.min_soft_dice_confidence
    if confidence is None:
        if not limit.abstain_when_nothing_found:
            return None
        reason = AbstentionReason.NOTHING_FOUND
        message = f"{quality.organ_id} was not found, and the project does not take that for an answer"
    elif confidence < least:
        reason = AbstentionReason.LOW_CONFIDENCE
        message = f"{quality.organ_id} has a confidence of {confidence:.3f}, below the project's limit of {least:.3f}"
    else:
        return None
    return Abstention(
        organ_id=quality.organ_id, soft_dice_confidence=confidence, limit=least, reason=reason, message=message
    )
