"""What can be said of a prediction without the truth: features that cases are ordered by."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rekindle_imaging.boxes import bounding_box
from rekindle_imaging.contours import boundary_length_mm
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.masks import count_components


@dataclass(frozen=True, kw_only=True)
class QualityFeatures:
    """Quality features of one organ in one case."""

    #: 0 to 1, on the model grid.
    soft_dice_confidence: float
    predicted_ml: float
    #: Length of the in-plane contours, summed over slices.
    boundary_length_mm: float
    #: 26-connected components.
    components: int
    #: Slices that hold the organ.
    slices: int


def soft_dice_confidence(probabilities: NDArray[np.float32], classes: NDArray[Any], c: int) -> float:
    """Soft Dice Confidence 2 sum(p y) / (sum p + sum y) of class `c`, pooled over the volume (arXiv
    2402.10665).

    `probabilities` (D, K, H, W), `classes` (D, H, W) the labels chosen from them. 0 where the class was not
    chosen anywhere: no confidence can be had in nothing.
    """
    chosen = classes == c
    count = int(np.count_nonzero(chosen))
    if count == 0:
        return 0.0
    p = probabilities[:, c]
    inside = float(p[chosen].sum(dtype=np.float64))
    return 2.0 * inside / (float(p.sum(dtype=np.float64)) + count)


def organ_quality(
    probabilities: NDArray[np.float32], labels: NDArray[Any], source: Geometry, c: int
) -> QualityFeatures:
    """Features of class `c`: confidence from `probabilities` (D, K, H, W) on the model grid (argmax over K),
    the rest from `labels`, class indices (k, j, i) on the native grid `source`."""
    organ = labels == c
    box = bounding_box(organ)
    return QualityFeatures(
        soft_dice_confidence=soft_dice_confidence(probabilities, probabilities.argmax(axis=1), c),
        predicted_ml=int(np.count_nonzero(organ)) * source.voxel_ml,
        boundary_length_mm=boundary_length_mm(organ, source),
        components=count_components(organ),
        slices=0 if box is None else int(np.count_nonzero(organ[box].any(axis=(1, 2)))),
    )
