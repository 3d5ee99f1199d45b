"""The threshold baseline learns from the seed set alone and finds organs by intensity, side and size."""

import numpy as np
import pytest
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume
from rekindle_local.baseline import ThresholdBaseline
from rekindle_local.synthetic import PUBLIC_CT, make_pair

ORGANS = {"liver": 1, "spleen": 2}


def phantom(*, liver_hu: float, seed: int) -> tuple[Volume, Volume]:
    """A body of fat with a box of liver on the right and one of spleen on the left; LPS, 3 x 3 x 4 mm."""
    geometry = Geometry(
        size=(60, 50, 20),
        spacing_mm=(3.0, 3.0, 4.0),
        origin_mm=(-88.0, -70.0, 0.0),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    voxels = np.full(geometry.shape, -125.0)
    voxels[:, 5:45, 5:55] = -60.0
    labels = np.zeros(geometry.shape, dtype=np.uint8)
    labels[4:15, 12:32, 10:30] = 1
    labels[6:13, 25:40, 38:50] = 2
    voxels[labels == 1] = liver_hu
    voxels[labels == 2] = 160.0
    voxels += np.random.default_rng(seed).normal(0.0, 4.0, voxels.shape)
    return Volume(np.round(voxels).astype(np.int16), geometry), Volume(labels, geometry)


def test_finds_organs_that_look_as_in_the_seed_set() -> None:
    """On a phantom like the seed's, both boxes are found nearly whole."""
    baseline = ThresholdBaseline.fit([phantom(liver_hu=70.0, seed=seed) for seed in range(2)], ORGANS)
    scores = baseline.score([phantom(liver_hu=70.0, seed=9)])
    assert {"liver", "spleen", "mean"} == set(scores)
    assert (scores["liver"] or 0.0) > 0.85
    assert (scores["spleen"] or 0.0) > 0.8
    assert pytest.approx((scores["liver"] + scores["spleen"]) / 2) == scores["mean"]


def test_fails_where_the_contrast_differs() -> None:
    """A liver 70 HU brighter than in the seed set is missed: thresholds do not transfer."""
    baseline = ThresholdBaseline.fit([phantom(liver_hu=70.0, seed=seed) for seed in range(2)], ORGANS)
    score = baseline.score([phantom(liver_hu=140.0, seed=9)])["liver"]
    assert score is not None
    assert score < 0.3


def test_prediction_is_on_the_images_own_grid() -> None:
    """Labels come back with the geometry of the image, whatever its orientation, each organ on its side."""
    pairs = [make_pair(PUBLIC_CT, seed, difficulty=0.1) for seed in range(3)]
    baseline = ThresholdBaseline.fit(pairs, ORGANS)
    for image, _ in pairs:
        predicted = baseline.predict(image)
        assert image.geometry == predicted.geometry
        assert image.voxels.shape == predicted.voxels.shape
    assert baseline.priors["liver"].x_range[0] < 0.3 < 0.7 < baseline.priors["spleen"].x_range[1]


def test_organ_that_no_seed_shows_is_an_error() -> None:
    """Asking for an organ without seed labels names that organ."""
    with pytest.raises(ValueError, match="kidney"):
        ThresholdBaseline.fit([phantom(liver_hu=70.0, seed=0)], {"kidney": 7})
