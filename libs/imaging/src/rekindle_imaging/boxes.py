"""The parts of a mask: the box around it, its connected components."""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Box = tuple[slice, ...]


def bounding_box(mask: NDArray[Any]) -> Box | None:
    """The smallest slices that hold every true voxel; None for an empty mask."""
    box: list[slice] = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        hit = np.flatnonzero(mask.any(axis=others))
        if hit.size == 0:
            return None
        box.append(slice(int(hit[0]), int(hit[-1]) + 1))
    return tuple(box)


def label_components(mask: NDArray[Any], *, corners: bool) -> NDArray[np.int32]:
    """Connected components numbered from 1 in memory order; 26-connected with `corners`, else 6-connected."""
    labels = np.zeros(mask.shape, dtype=np.int32)
    ndimage.label(mask, structure=ndimage.generate_binary_structure(3, 3 if corners else 1), output=labels)
    return labels
