"""Predicted minutes: the formula by hand, and its order."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rekindle.vocabulary import OrganQuality
from rekindle_inference.domain.easiness import ColdStart, predicted_minutes, wrong_contour_mm

LIVER = OrganQuality(
    organ_id="liver",
    soft_dice_confidence=0.9,
    predicted_ml=1500.0,
    boundary_length_mm=10_000.0,
    components=1,
    slices=40,
)


def test_minutes_by_hand():
    """Reading, drawing and cleaning add up as the docstring says."""
    constants = ColdStart(
        reading_s_per_slice=1.0, drawing_s_per_mm=0.1, error_share=0.8, error_rate=2.0, cleaning_s_per_component=5.0
    )
    two_parts = replace(LIVER, components=3, soft_dice_confidence=0.5)
    drawing_s = 0.1 * 10_000 * 0.8 * (1 - math.exp(-2.0 * 0.5))
    expected = (60 * 1.0 + drawing_s + 2 * 5.0) / 60
    assert pytest.approx(expected) == predicted_minutes([two_parts], 60, constants)


def test_level_is_that_of_the_first_round():
    """22 % of missing confidence over 24 m of contour in 96 slices costs about 14 minutes, as it was measured."""
    organs = [
        replace(LIVER, soft_dice_confidence=0.78, boundary_length_mm=17_000.0),
        replace(LIVER, organ_id="spleen", soft_dice_confidence=0.78, boundary_length_mm=7_000.0),
    ]
    assert pytest.approx(13.87, abs=0.5) == predicted_minutes(organs, 96)


def test_an_organ_that_was_not_found_must_be_drawn():
    """Nothing predicted is not easy: it costs as much as drawing both organs from nothing, about 25 minutes."""
    nothing = replace(
        LIVER, soft_dice_confidence=None, predicted_ml=0.0, boundary_length_mm=0.0, components=0, slices=0
    )
    assert pytest.approx(24.8, abs=2.0) == predicted_minutes([nothing, nothing], 100)


@given(surer=st.floats(0, 1), less_sure=st.floats(0, 1), length=st.floats(1, 1e5))
def test_less_confidence_never_costs_less(surer, less_sure, length):
    """Of two labels with equal contours the one with more doubt comes later."""
    less_sure, surer = sorted((less_sure, surer))
    at = [replace(LIVER, soft_dice_confidence=c, boundary_length_mm=length) for c in (surer, less_sure)]
    assert predicted_minutes([at[0]], 50) <= predicted_minutes([at[1]], 50)


@given(confidence=st.floats(-1, 2), length=st.floats(0, 1e5))
def test_wrong_contour_is_a_part_of_the_contour(confidence, length):
    """Never negative, never more than there is, whatever confidence is claimed."""
    quality = replace(LIVER, soft_dice_confidence=confidence, boundary_length_mm=length)
    assert 0 <= wrong_contour_mm(quality, 50) <= length
