"""Where a coarse label is likely to be wrong: voxels per slice that are expected to be corrected."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rekindle_imaging.boxes import Box, bounding_box
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.resampling import interpolate, overlap, slabs
from rekindle_imaging.volume import image_of

#: Probabilities below this count as 0: a softmax is nowhere exactly 0, and over a whole slice that would add up.
LEAST_PROBABILITY = 0.01


@dataclass(frozen=True, kw_only=True, eq=False)
class SliceUncertainty:
    """For each slice of the native grid, float64 (k,)."""

    #: Voxels whose label is expected to be wrong.
    voxels_wrong: NDArray[np.float64]
    #: 1 - soft Dice confidence of the slice: 0 where nothing is predicted and nothing is likely.
    uncertainty: NDArray[np.float64]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Sums:
    """One organ's sums over each slice, float64 (k,)."""

    #: Voxels that the mask gives to the organ.
    labelled: NDArray[np.float64]
    #: Probability of the organ: everywhere, where the mask has the organ, where it has background.
    everywhere: NDArray[np.float64]
    within: NDArray[np.float64]
    in_background: NDArray[np.float64]


def slice_uncertainties(
    probabilities: NDArray[np.float32], grid: Geometry, classes: NDArray[np.uint8], source: Geometry
) -> tuple[SliceUncertainty, ...]:
    """Uncertainty of a mask, for all organs together and then for each: K entries.

    `probabilities` (D, K, H, W) on the model grid, class 0 being background; `classes` (k, j, i) the mask, class
    indices on the native grid `source`. With p the probability of a class brought linearly to the native grid, and y
    the mask, the voxels expected to be wrong are, in each slice,

    for organ c: sum over y = c of (1 - p_c) + sum over y != c of p_c, the expected size of the difference between
    mask and truth if each voxel's truth is drawn from p;
    for all: sum of (1 - p_y), a voxel that changes from one organ to another counted once.

    An organ's p below `LEAST_PROBABILITY` on the model grid counts as 0; background's p is what the organs leave.
    """
    organs = [_sums(probabilities[:, c], grid, classes, c, source) for c in range(1, probabilities.shape[1])]
    uncertainties = [
        _uncertainty_of(
            organ.labelled + organ.everywhere - 2 * organ.within, organ.within, organ.labelled + organ.everywhere
        )
        for organ in organs
    ]
    nothing = np.zeros(len(classes))
    wrong = sum((o.labelled - o.within + o.in_background for o in organs), nothing)
    within = sum((o.within for o in organs), nothing)
    sizes = sum((o.labelled + o.everywhere for o in organs), nothing)
    return (_uncertainty_of(wrong, within, sizes), *uncertainties)


def _uncertainty_of(
    wrong: NDArray[np.float64], within: NDArray[np.float64], sizes: NDArray[np.float64]
) -> SliceUncertainty:
    confidence = np.divide(2 * within, sizes, out=np.ones_like(sizes), where=sizes > 0)
    return SliceUncertainty(voxels_wrong=np.maximum(wrong, 0.0), uncertainty=np.clip(1.0 - confidence, 0.0, 1.0))


def _sums(p: NDArray[np.float32], grid: Geometry, classes: NDArray[np.uint8], c: int, source: Geometry) -> _Sums:
    sums = _Sums(
        labelled=np.count_nonzero(classes == c, axis=(1, 2)).astype(np.float64),
        everywhere=np.zeros(len(classes)),
        within=np.zeros(len(classes)),
        in_background=np.zeros(len(classes)),
    )
    for box, likely in _on_native(p, grid, source):
        mask, slices = classes[box], box[0]
        sums.everywhere[slices] = likely.sum(axis=(1, 2), dtype=np.float64)
        sums.within[slices] = np.where(mask == c, likely, 0).sum(axis=(1, 2), dtype=np.float64)
        sums.in_background[slices] = np.where(mask == 0, likely, 0).sum(axis=(1, 2), dtype=np.float64)
    return sums


def _on_native(p: NDArray[np.float32], grid: Geometry, source: Geometry) -> Iterator[tuple[Box, NDArray[np.float32]]]:
    """The probability on the native grid, in parts (k, j, i) that cover all of it that is not 0."""
    box = bounding_box(p >= LEAST_PROBABILITY)
    if box is None:
        return
    # One voxel more on each side, as linear interpolation reaches that far.
    box = tuple(slice(max(s.start - 1, 0), min(s.stop + 1, n)) for s, n in zip(box, p.shape, strict=True))
    part = grid.box([s.start for s in reversed(box)], [s.stop - s.start for s in reversed(box)])
    placed = overlap(part, source)
    if placed is None:
        return
    native, (k, j, i) = placed
    image = image_of(np.where(p[box] < LEAST_PROBABILITY, np.float32(0), p[box]), part)
    for first, last in slabs(native):
        slab = native.box((0, 0, first), (native.size[0], native.size[1], last - first))
        yield (slice(k.start + first, k.start + last), j, i), interpolate(image, slab)
