"""Quality features by hand."""

import numpy as np
import pytest
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.quality import organ_quality, soft_dice_confidence

GRID = Geometry(size=(10, 10, 6), spacing_mm=(2, 2, 5), origin_mm=(0, 0, 0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1))


def _probabilities() -> np.ndarray:
    p = np.zeros((6, 2, 10, 10), np.float32)
    p[1:4, 1, 2:6, 2:6] = 0.8
    p[1:4, 1, 8, 8] = 0.4
    p[:, 0] = 1 - p[:, 1]
    return p


def test_confidence_by_hand() -> None:
    """48 voxels at 0.8 chosen, 3 at 0.4 not: 2 * 38.4 / (39.6 + 48)."""
    p = _probabilities()
    assert 2 * 38.4 / (39.6 + 48) == pytest.approx(soft_dice_confidence(p, p.argmax(axis=1), 1))


def test_a_certain_prediction_has_confidence_one() -> None:
    """Probabilities of zero and one that agree with the labels give 1."""
    p = (_probabilities() > 0.5).astype(np.float32)
    assert 1.0 == pytest.approx(soft_dice_confidence(p, p.argmax(axis=1), 1))


def test_nothing_predicted_is_no_confidence() -> None:
    """An organ that was not found has confidence 0, not NaN and not 1."""
    p = np.zeros((2, 2, 4, 4), np.float32)
    assert 0.0 == soft_dice_confidence(p, p.argmax(axis=1), 1)


def test_features_of_an_organ() -> None:
    """Volume, contour, components and slices come from the native labels."""
    labels = np.zeros((6, 10, 10), np.uint8)
    labels[1:4, 2:6, 2:6] = 1
    labels[5, 0, 0] = 1
    quality = organ_quality(_probabilities(), labels, GRID, 1)
    assert 49 * 0.02 == pytest.approx(quality.predicted_ml)
    assert (2, 4) == (quality.components, quality.slices)
    # Three squares of 8 mm and a single pixel of 2 mm, with cut corners.
    assert 3 * (4 * 8 - 4 * (4 - 8**0.5) / 2) + 4 * 8**0.5 / 2 == pytest.approx(quality.boundary_length_mm)
    assert 0.877 == pytest.approx(quality.soft_dice_confidence, abs=1e-3)


def test_features_of_a_missing_organ_are_zero() -> None:
    """No organ: no volume, no contour, no slices."""
    quality = organ_quality(_probabilities(), np.zeros((6, 10, 10), np.uint8), GRID, 1)
    assert (0, 0, 0, 0) == (
        quality.predicted_ml,
        quality.boundary_length_mm,
        quality.components,
        quality.slices,
    )
