"""Measures and clean-up of masks; arrays are (k, j, i), lengths in mm, volumes in ml."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rekindle_imaging.boxes import bounding_box, label_components
from rekindle_imaging.contours import added_path_length_mm, boundary_length_mm

__all__ = [
    "added_path_length_mm",
    "boundary_length_mm",
    "count_components",
    "dice",
    "keep_largest_per_class",
    "largest_component",
    "removed_components",
    "voxels_changed",
]


def dice(a: NDArray[Any], b: NDArray[Any]) -> float | None:
    """Dice of two boolean masks of one shape: 2|a and b| / (|a| + |b|); None when both are empty."""
    _same_shape(a, b)
    a, b = a.astype(bool, copy=False), b.astype(bool, copy=False)
    total = int(np.count_nonzero(a)) + int(np.count_nonzero(b))
    if total == 0:
        return None
    return 2.0 * int(np.count_nonzero(a & b)) / total


def largest_component(mask: NDArray[Any]) -> NDArray[np.bool_]:
    """The largest 26-connected component; of equal ones the first in memory order. Empty stays empty."""
    kept = np.zeros(mask.shape, dtype=bool)
    box = bounding_box(mask)
    if box is None:
        return kept
    labels = label_components(mask[box], corners=True)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    kept[box] = labels == int(sizes.argmax())
    return kept


def count_components(mask: NDArray[Any]) -> int:
    """Number of 26-connected components."""
    box = bounding_box(mask)
    return 0 if box is None else int(label_components(mask[box], corners=True).max())


def keep_largest_per_class(classes: NDArray[np.uint8], n_classes: int) -> NDArray[np.uint8]:
    """Class indices (k, j, i) with only the largest component of each class 1..n_classes-1; the rest is 0."""
    kept = np.zeros_like(classes)
    for c in range(1, n_classes):
        kept[largest_component(classes == c)] = c
    return kept


def voxels_changed(a: NDArray[Any], b: NDArray[Any]) -> int:
    """Number of voxels in which two masks differ."""
    _same_shape(a, b)
    return int(np.count_nonzero(a != b))


def removed_components(prediction: NDArray[Any], truth: NDArray[Any]) -> int:
    """Number of the prediction's 26-connected components that touch no voxel of the truth."""
    _same_shape(prediction, truth)
    box = bounding_box(prediction)
    if box is None:
        return 0
    labels = label_components(prediction[box], corners=True)
    touched = np.unique(labels[truth[box].astype(bool, copy=False)])
    return int(labels.max()) - int(np.count_nonzero(touched))


def _same_shape(a: NDArray[Any], b: NDArray[Any]) -> None:
    if a.shape != b.shape:
        raise ValueError(f"masks of different shapes: {a.shape} and {b.shape}")
