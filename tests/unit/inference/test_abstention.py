"""Abstention: the limit's two sides, organs without a limit, and what is taken out of a mask."""

import numpy as np
import pytest
from rekindle.vocabulary import Organ, OrganQuality
from rekindle_inference.domain.abstention import (
    AbstentionReason,
    QualityLimit,
    decide_abstentions,
    without_organs,
)

LOW, NOTHING = AbstentionReason.LOW_CONFIDENCE, AbstentionReason.NOTHING_FOUND


def quality(organ_id, confidence):
    return OrganQuality(
        organ_id=organ_id,
        soft_dice_confidence=confidence,
        predicted_ml=1.0,
        boundary_length_mm=1.0,
        components=1,
        slices=1,
    )


@pytest.mark.parametrize(
    ("confidence", "least", "strict", "expected"),
    [
        (0.79, 0.8, False, LOW),
        (0.8, 0.8, False, None),
        (0.81, 0.8, False, None),
        (0.0, 0.0, False, None),
        (None, 0.8, False, None),
        (None, 0.8, True, NOTHING),
        (None, 0.0, True, NOTHING),
        (0.9, 0.8, True, None),
    ],
)
def test_decides_by_the_limit(confidence, least, strict, expected):
    """Below is left out, at the limit is passed on; nothing found is decided by the flag alone."""
    limit = QualityLimit(organ_id="liver", min_soft_dice_confidence=least, abstain_when_nothing_found=strict)
    found = decide_abstentions([quality("liver", confidence)], [limit])
    assert ([] if expected is None else [expected]) == [abstention.reason for abstention in found]


def test_organs_without_a_limit_are_passed_on():
    """A limit of one organ says nothing of the others, and one of an organ that is not predicted says nothing."""
    limits = [QualityLimit(organ_id=organ, min_soft_dice_confidence=0.9) for organ in ("spleen", "kidney")]
    found = decide_abstentions([quality("liver", 0.1), quality("spleen", 0.1)], limits)
    assert ["spleen"] == [abstention.organ_id for abstention in found]


def test_only_the_organs_left_out_become_background():
    """By their label values, whatever their class index."""
    organs = [Organ(id="liver", label_value=6), Organ(id="spleen", label_value=255)]
    voxels = np.asarray([[[0, 6, 255, 6, 255]]], np.uint8)
    found = decide_abstentions(
        [quality("spleen", 0.1)], [QualityLimit(organ_id="spleen", min_soft_dice_confidence=0.5)]
    )
    assert [0, 6, 0, 6, 0] == without_organs(voxels, organs, found).ravel().tolist()
    assert without_organs(voxels, organs, ()) is voxels
