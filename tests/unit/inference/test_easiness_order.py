"""Predicted minutes order cases as the simulated annotator's minutes do."""

import numpy as np
from rekindle.vocabulary import OrganQuality
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.quality import organ_quality
from rekindle_imaging.volume import Volume
from rekindle_inference.domain.easiness import predicted_minutes
from rekindle_local.annotator import Annotator
from scipy import ndimage
from scipy.stats import spearmanr

GRID = Geometry(
    size=(64, 64, 20),
    spacing_mm=(4.0, 4.0, 6.0),
    origin_mm=(0.0, 0.0, 0.0),
    direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
)


def case(seed):
    """A ball as liver, and what a model makes of it: probabilities that are blurred, shifted and noisy."""
    rng = np.random.default_rng(seed)
    k, j, i = np.ogrid[:20, :64, :64]
    radius_mm = rng.uniform(25, 55)
    distance_mm = np.sqrt(((k - 10) * 6.0) ** 2 + ((j - 32) * 4.0) ** 2 + ((i - 32) * 4.0) ** 2)
    truth = (distance_mm < radius_mm).astype(np.uint8)
    badness = rng.uniform(0, 1)
    noise = ndimage.gaussian_filter(rng.standard_normal(GRID.shape), (1, 3, 3))
    margin = (radius_mm - distance_mm) / (4 + 12 * badness) + badness * 2.5 * noise / noise.std()
    liver = (1 / (1 + np.exp(-margin))).astype(np.float32)
    return truth, np.stack([1 - liver, liver], axis=1)


def test_order_agrees_with_the_simulated_annotator():
    """Over cases of all sizes and qualities the ranks agree, better than size alone would rank them."""
    simulated, predicted, sizes = [], [], []
    for seed in range(24):
        truth, probabilities = case(seed)
        coarse = probabilities.argmax(axis=1).astype(np.uint8)
        found = organ_quality(probabilities, coarse, GRID, 1)
        quality = OrganQuality(
            organ_id="liver",
            soft_dice_confidence=found.soft_dice_confidence,
            predicted_ml=found.predicted_ml,
            boundary_length_mm=found.boundary_length_mm,
            components=found.components,
            slices=found.slices,
        )
        predicted.append(predicted_minutes([quality], 20))
        annotator = Annotator(0, organs={"liver": 1})
        simulated.append(annotator.minutes(Volume(coarse, GRID), Volume(truth, GRID), str(seed)).total)
        sizes.append(found.predicted_ml)
    agreement = spearmanr(simulated, predicted).statistic
    assert agreement > 0.7
    assert agreement > spearmanr(simulated, sizes).statistic
