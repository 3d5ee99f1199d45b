"""Linear resampling between a volume and a grid in the same space, without half-voxel shifts."""

import math
from collections.abc import Iterator

import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray

from rekindle_imaging.boxes import Box
from rekindle_imaging.geometry import Geometry

#: Voxels that are interpolated at a time.
_SLAB_VOXELS = 1 << 25
_COARSENING = 1.5
_IDENTITY = sitk.Transform(3, sitk.sitkIdentity)


def interpolate(image: sitk.Image, grid: Geometry, outside: float = 0.0) -> NDArray[np.float32]:
    """Linear interpolation of an image at the voxels of a grid: float32 (k, j, i).

    Positions up to half a voxel beyond the outermost centres count as inside and take the edge's value;
    beyond that the value is `outside`.
    """
    resampled = sitk.Resample(
        image,
        grid.size,
        _IDENTITY,
        sitk.sitkLinear,
        grid.origin_mm,
        grid.spacing_mm,
        grid.direction,
        outside,
        sitk.sitkFloat32,
    )
    return sitk.GetArrayFromImage(resampled)


def resample(
    image: sitk.Image, source: Geometry, grid: Geometry, *, outside: float, limits: tuple[float, float]
) -> NDArray[np.float32]:
    """An image (of the nearest-LPS geometry `source`) on a parallel grid: float32 (k, j, i), clipped to
    `limits`.

    Where the grid is more than 1.5 times as coarse as the source, each value is the mean of equally spaced
    linear samples inside its voxel, at most 1.5 source voxels apart: that averages instead of aliasing, costs
    one interpolation of a finer grid instead of a filter over the source, and is symmetric about the centre.
    """
    parts = [sample_count(g, s) for g, s in zip(grid.spacing_mm, source.spacing_mm, strict=True)]
    result = np.empty(grid.shape, dtype=np.float32)
    for first, last in slabs(grid, parts[0] * parts[1] * parts[2]):
        slab = grid.box((0, 0, first), (grid.size[0], grid.size[1], last - first))
        values = interpolate(image, _finer(slab, parts), outside)
        np.clip(values, limits[0], limits[1], out=values)
        k, j, i = slab.shape
        cells = values.reshape(k, parts[2], j, parts[1], i, parts[0])
        result[first:last] = cells.mean(axis=(1, 3, 5)) if max(parts) > 1 else values
    return result


def sample_count(grid_mm: float, source_mm: float) -> int:
    """Samples along one axis of a grid voxel."""
    return max(1, math.ceil(grid_mm / source_mm / _COARSENING - 1e-6))


def slabs(grid: Geometry, cost: int = 1) -> Iterator[tuple[int, int]]:
    """Ranges of slices of a grid whose voxels, times `cost`, stay below a fixed number."""
    step = max(1, _SLAB_VOXELS // (grid.size[0] * grid.size[1] * cost))
    for first in range(0, grid.size[2], step):
        yield first, min(first + step, grid.size[2])


def inside(grid: Geometry, source: Geometry) -> Box:
    """The part (k, j, i) of a grid whose voxel centres lie within the voxels of a parallel `source`."""
    start = source.continuous_index(grid.origin_mm)
    part: list[slice] = []
    for axis in range(3):
        step = grid.spacing_mm[axis] / source.spacing_mm[axis]
        first = math.ceil((-0.5 - start[axis]) / step - 1e-9)
        last = math.floor((source.size[axis] - 0.5 - start[axis]) / step + 1e-9)
        first, stop = max(first, 0), min(last + 1, grid.size[axis])
        part.append(slice(first, max(first, stop)))
    return tuple(reversed(part))


def _finer(grid: Geometry, parts: list[int]) -> Geometry:
    """The grid with each voxel cut into equal parts."""
    i, j, k = (n * p for n, p in zip(grid.size, parts, strict=True))
    x, y, z = (s / p for s, p in zip(grid.spacing_mm, parts, strict=True))
    start = grid.physical_point([-0.5 + 0.5 / p for p in parts])
    return Geometry(size=(i, j, k), spacing_mm=(x, y, z), origin_mm=start, direction=grid.direction)


def overlap(part: Geometry, grid: Geometry) -> tuple[Geometry, Box] | None:
    """The part of `grid` that can touch the voxels of `part`: a grid, and slices (k, j, i); None if none."""
    reach = [(-0.5, n - 0.5) for n in part.size]
    ends = [(i, j, k) for i in reach[0] for j in reach[1] for k in reach[2]]
    index = np.asarray([grid.continuous_index(part.physical_point(end)) for end in ends])
    start = np.maximum(np.floor(index.min(axis=0)), 0).astype(int)
    stop = np.minimum(np.ceil(index.max(axis=0)) + 1, grid.size).astype(int)
    if (stop <= start).any():
        return None
    box = grid.box([int(n) for n in start], [int(n) for n in stop - start])
    return box, tuple(slice(int(a), int(b)) for a, b in zip(start[::-1], stop[::-1], strict=True))
