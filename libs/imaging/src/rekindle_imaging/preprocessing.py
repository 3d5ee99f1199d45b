"""From a volume to what a network sees, and from its probabilities back to the volume's own grid."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rekindle_imaging.boxes import Box, bounding_box
from rekindle_imaging.errors import VolumeError
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.grids import model_grid, nearest_lps
from rekindle_imaging.preprocessing_spec import Preprocessing, Window
from rekindle_imaging.resampling import inside, interpolate, overlap, resample, slabs
from rekindle_imaging.volume import Volume, image_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Prepared:
    """A volume as a network sees it."""

    #: float32 (D, H, W) on `grid`; zero mean and unit variance over the part inside the volume.
    images: NDArray[np.float32]
    #: The model grid.
    grid: Geometry
    #: The volume's own grid, where results belong.
    source: Geometry


def prepare(volume: Volume, preprocessing: Preprocessing, *, organ_mask: Volume | None = None) -> Prepared:
    """Resamples, windows and normalises an image for a network.

    `organ_mask` only for labelled seed cases: keeps the slices within 25 mm of its organs. In plane the
    grid is always centred on the body (see `model_grid`), so that training and serving see an organ in the
    same place. Outside the volume lies the window's low end. Mean and variance are those of the whole
    prepared grid inside the volume, after windowing; a constant volume becomes zeros.
    Raises VolumeError: GEOMETRY_MISMATCH, TOO_LARGE, NON_FINITE.
    """
    low, high = _limits(volume.voxels, preprocessing.window)
    grid = model_grid(volume, preprocessing, organ_mask)
    oriented, _, _ = nearest_lps(volume.geometry)
    images = resample(volume.to_sitk(), oriented, grid, outside=low, limits=(low, high))
    _normalise(images, images[inside(grid, oriented)])
    return Prepared(images=images, grid=grid, source=volume.geometry)


def prepare_mask(mask: Volume, grid: Geometry) -> NDArray[np.uint8]:
    """A mask on a model grid: uint8 (D, H, W) with the mask's own label values.

    Each label is resampled like an image (a fraction per voxel); the label with the largest fraction wins,
    and background where none exceeds it. Outside the mask's volume is background.
    """
    oriented, _, _ = nearest_lps(mask.geometry)
    labels = np.zeros(grid.shape, dtype=np.uint8)
    background = np.ones(grid.shape, dtype=np.float32)
    best = np.zeros(grid.shape, dtype=np.float32)
    counts = np.sum([np.bincount(plane.ravel(), minlength=256) for plane in mask.voxels], axis=0)
    for label in np.flatnonzero(counts[1:]) + 1:
        organ = _around(mask, int(label))
        placed = overlap(organ.geometry, grid)
        if placed is None:
            continue
        part, target = placed
        fraction = resample(organ.to_sitk(), oriented, part, outside=0.0, limits=(0.0, 1.0))
        background[target] -= fraction
        better = fraction > best[target]
        labels[target][better] = label
        np.maximum(best[target], fraction, out=best[target])
    labels[background >= best] = 0
    return labels


def _around(mask: Volume, label: int) -> Volume:
    """One label as 0 and 1, with one voxel around it where the volume has one."""
    organ = mask.voxels == label
    box = bounding_box(organ)
    box = tuple(slice(0, n) for n in organ.shape) if box is None else _grown(box, organ.shape)
    return Volume(organ[box].astype(np.uint8), _part(mask.geometry, box))


def stack_channels(
    images: NDArray[np.float32], indices: NDArray[np.integer[Any]] | None, channels: int
) -> NDArray[np.float32]:
    """Slices for a network: (N, C, H, W) of `images` (D, H, W) at `indices` (all when None).

    One channel is the slice; three are the slice before, the slice, and the one after it, where the volume's
    first and last slice stand in for those that do not exist.
    """
    if channels not in (1, 3):
        raise ValueError("channels must be 1 or 3")
    chosen = np.arange(len(images)) if indices is None else np.asarray(indices)
    offsets = np.asarray([0] if channels == 1 else [-1, 0, 1])
    return images[np.clip(chosen[:, None] + offsets, 0, len(images) - 1)]


def restore_labels(probabilities: NDArray[np.float32], grid: Geometry, source: Geometry) -> NDArray[np.uint8]:
    """Class indices uint8 (k, j, i) on the native grid `source` from probabilities (D, K, H, W) on a model
    grid.

    Linear interpolation of each class, then the largest; ties go to the lower class, and outside the grid is
    background (class 0). Works on the part around the foreground and holds one class at a time; the result is
    that of interpolating everything, since where background leads at all neighbours it leads between them.
    Raises VolumeError: BAD_PROBABILITIES.
    """
    depth, n_classes, rows, columns = probabilities.shape
    if (depth, rows, columns) != grid.shape or not 1 <= n_classes <= 256:
        raise VolumeError("BAD_PROBABILITIES", f"probabilities of shape {probabilities.shape} for {grid.shape}")
    labels = np.zeros(source.shape, dtype=np.uint8)
    box = _foreground(probabilities)
    if box is None:
        return labels
    part = _part(grid, box)
    native = overlap(part, source)
    if native is None:
        return labels
    geometry, target = native
    k, j, i = box
    labels[target] = _largest_class(probabilities[k, :, j, i], part, geometry)
    return labels


def _foreground(probabilities: NDArray[np.float32]) -> Box | None:
    """The box (D, H, W) of voxels where another class leads over background, and one voxel around it."""
    leads = np.zeros((len(probabilities), *probabilities.shape[2:]), dtype=bool)
    for c in range(1, probabilities.shape[1]):
        leads |= probabilities[:, c] > probabilities[:, 0]
    box = bounding_box(leads)
    return None if box is None else _grown(box, leads.shape)


def _grown(box: Box, shape: tuple[int, ...]) -> Box:
    """The box with one voxel around it, inside the array."""
    return tuple(slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(box, shape, strict=True))


def _part(geometry: Geometry, box: Box) -> Geometry:
    """The part of a grid that a box (k, j, i) of its array covers."""
    return geometry.box([s.start for s in reversed(box)], [s.stop - s.start for s in reversed(box)])


def _largest_class(probabilities: NDArray[np.float32], grid: Geometry, native: Geometry) -> NDArray[np.uint8]:
    images = [image_of(probabilities[:, c], grid) for c in range(probabilities.shape[1])]
    labels = np.zeros(native.shape, dtype=np.uint8)
    for first, last in slabs(native):
        slab = native.box((0, 0, first), (native.size[0], native.size[1], last - first))
        best = interpolate(images[0], slab)
        for c, image in enumerate(images[1:], start=1):
            values = interpolate(image, slab)
            better = values > best
            labels[first:last][better] = c
            np.maximum(best, values, out=best)
    return labels


def _limits(voxels: NDArray[Any], window: Window) -> tuple[float, float]:
    """The window in the volume's own values."""
    if voxels.dtype.kind == "f" and not np.isfinite(voxels).all():
        raise VolumeError("NON_FINITE", "the image has voxels that are NaN or infinite; replace them")
    if window.kind == "fixed":
        return window.low, window.high
    low, high = np.percentile(voxels, [window.low, window.high])
    return float(low), float(high)


def _normalise(images: NDArray[np.float32], within: NDArray[np.float32]) -> None:
    """Zero mean and unit variance in place, by the statistics of `within`."""
    if within.size == 0:
        within = images
    mean, deviation = float(within.mean(dtype=np.float64)), float(within.std(dtype=np.float64))
    images -= np.float32(mean)
    # A constant volume has nothing to scale up but rounding.
    images *= np.float32(1 / deviation if deviation > 1e-6 * max(1.0, abs(mean)) else 0.0)
