"""Slices at a coarser resolution, for viewers: rows and columns halved level by level, slices kept."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from rekindle_imaging.geometry import Geometry

MAX_LEVEL = 8


def reduced_geometry(geometry: Geometry, level: int) -> Geometry:
    """The grid at a level: 2^level x 2^level voxels of a slice, from row 0 and column 0 on, are one.

    The voxels at the far edges stand for fewer where the size is no multiple of 2^level; their centres are given as if
    they did not.
    """
    if level == 0:
        return geometry
    columns, rows, slices = geometry.size
    block = 2**level
    start = geometry.physical_point([(min(block, columns) - 1) / 2, (min(block, rows) - 1) / 2, 0])
    i_mm, j_mm, k_mm = geometry.spacing_mm
    return Geometry(
        size=(-(-columns // block), -(-rows // block), slices),
        spacing_mm=(i_mm * block, j_mm * block, k_mm),
        origin_mm=start,
        direction=geometry.direction,
    )


def reduce_image(voxels: NDArray[np.int16], level: int) -> NDArray[np.int16]:
    """Means of blocks of (k, j, i), rounded to whole numbers, half to even."""
    if level == 0:
        return voxels
    block = 2**level
    means = _sums(voxels.astype(np.int32), block) / _counts(voxels.shape, block)
    return np.rint(means).astype(np.int16)


def reduce_mask(labels: NDArray[np.uint8], level: int) -> NDArray[np.uint8]:
    """The most frequent label of each block of (k, j, i); of equally frequent ones the lowest."""
    if level == 0:
        return labels
    block = 2**level
    shape = (len(labels), *(-(-n // block) for n in labels.shape[1:]))
    result, most = np.zeros(shape, dtype=np.uint8), np.zeros(shape, dtype=np.int32)
    for label in np.flatnonzero(np.bincount(labels.ravel(), minlength=256)):
        count = _sums((labels == label).astype(np.int32), block)
        more = count > most
        result[more] = label
        most[more] = count[more]
    return result


def _sums(values: NDArray[np.int32], block: int) -> NDArray[np.int32]:
    rows = np.add.reduceat(values, np.arange(0, values.shape[1], block), axis=1)
    return np.add.reduceat(rows, np.arange(0, values.shape[2], block), axis=2)


def _counts(shape: tuple[int, ...], block: int) -> NDArray[Any]:
    """Voxels of each block of a slice (j, i)."""
    rows, columns = (np.minimum(block, n - np.arange(0, n, block)) for n in shape[1:])
    return rows[:, None] * columns[None, :]
