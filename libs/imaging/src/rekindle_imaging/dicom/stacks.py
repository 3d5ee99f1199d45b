"""Stacks: planes put in order along their normal, if they make one regular grid."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from rekindle_imaging.dicom.planes import Plane
from rekindle_imaging.errors import VolumeError
from rekindle_imaging.geometry import MAX_SPACING_MM, Geometry

#: Direction cosines of one series may differ by this: what decimal strings lose.
_ORIENTATION_TOLERANCE: Final = 1e-3
_SPACING_TOLERANCE_MM: Final = 1e-3
#: Two images nearer than this lie at the same place.
_SAME_PLACE_MM: Final = 1e-2
#: A gap may differ from the usual one by this part of it, or by `_GAP_TOLERANCE_MM`, whichever is more.
_GAP_TOLERANCE: Final = 0.05
_GAP_TOLERANCE_MM: Final = 0.05
#: Gaps from here on, in usual gaps, mean that slices are missing.
_MISSING_FROM: Final = 1.5
#: Slices may be shifted sideways against each other by this part of a pixel over the whole stack.
_SHIFT_TOLERANCE: Final = 0.5


def arrange(planes: Sequence[Plane], max_voxels: int) -> tuple[list[Plane], Geometry]:
    """The planes in the order of the axis k, and the grid that they make.

    The axis k is the normal of the planes (right-handed), so the first plane has the lowest position along it.
    One plane alone is taken to be as thick as its SliceThickness says.
    Raises VolumeError: SIZE_MISMATCH, MIXED_ORIENTATION, DUPLICATE_SLICES, MISSING_SLICES, UNEVEN_SPACING,
    TILTED_GANTRY, MISSING_TAG, BAD_GEOMETRY, TOO_LARGE.
    """
    first = planes[0]
    _check_alike(planes)
    if first.rows * first.columns * len(planes) > max_voxels:
        raise VolumeError("TOO_LARGE", f"the series has more than {max_voxels} voxels")
    heights = np.asarray([first.normal @ plane.position_mm for plane in planes])
    order = np.argsort(heights, kind="stable")
    ordered = [planes[index] for index in order]
    spacing = _slice_spacing(ordered, heights[order])
    _check_straight(ordered, first.normal)
    geometry = Geometry(
        size=(first.columns, first.rows, len(ordered)),
        spacing_mm=(first.spacing_mm[0], first.spacing_mm[1], spacing),
        origin_mm=_triple(ordered[0].position_mm),
        direction=tuple(float(x) for x in np.column_stack([first.directions, first.normal]).ravel()),
    )
    return ordered, geometry


def _check_alike(planes: Sequence[Plane]) -> None:
    first = planes[0]
    for plane in planes:
        if (plane.rows, plane.columns) != (first.rows, first.columns):
            raise VolumeError("SIZE_MISMATCH", "the images differ in rows or columns; send one series of one size")
        if np.abs(plane.directions - first.directions).max() > _ORIENTATION_TOLERANCE:
            raise VolumeError(
                "MIXED_ORIENTATION", "the images do not lie parallel (localizer, reformats?); send one orientation"
            )
        if np.abs(np.subtract(plane.spacing_mm, first.spacing_mm)).max() > _SPACING_TOLERANCE_MM:
            raise VolumeError("SIZE_MISMATCH", "the images differ in PixelSpacing; send one series of one spacing")


def _slice_spacing(ordered: Sequence[Plane], heights: NDArray[np.float64]) -> float:
    """Millimetres between slices; of one plane alone its thickness."""
    if len(ordered) == 1:
        thickness = ordered[0].thickness_mm
        if thickness is None:
            raise VolumeError("MISSING_TAG", "a single image lacks SliceThickness; send the whole series")
        return thickness
    gaps = np.diff(heights)
    if gaps.min() < _SAME_PLACE_MM:
        raise VolumeError(
            "DUPLICATE_SLICES",
            f"two images lie at the same place, the {_ordinal(int(gaps.argmin()) + 1)} slice from the bottom "
            "(repeats, phases, echoes?); send one of them",
        )
    _check_gaps(gaps)
    spacing = float(heights[-1] - heights[0]) / (len(ordered) - 1)
    if spacing > MAX_SPACING_MM:
        raise VolumeError("BAD_GEOMETRY", "the slices lie more than a metre apart")
    return spacing


def _check_gaps(gaps: NDArray[np.float64]) -> None:
    usual = float(np.median(gaps))
    differing = np.flatnonzero(np.abs(gaps - usual) > max(_GAP_TOLERANCE_MM, _GAP_TOLERANCE * usual))
    if not differing.size:
        return
    worst = int(differing[np.argmax(gaps[differing])])
    where = f"{gaps[worst]:.2f} mm instead of {usual:.2f} mm after the {_ordinal(worst + 1)} slice from the bottom"
    if gaps[worst] >= _MISSING_FROM * usual:
        count = int(sum(round(gap / usual) - 1 for gap in gaps[differing] if gap >= _MISSING_FROM * usual))
        raise VolumeError("MISSING_SLICES", f"about {count} slices are missing: a gap of {where}; send all of them")
    raise VolumeError("UNEVEN_SPACING", f"the slices are not evenly spaced: a gap of {where}; resample the series")


def _check_straight(ordered: Sequence[Plane], normal: NDArray[np.float64]) -> None:
    first = ordered[0]
    offsets = np.asarray([plane.position_mm - first.position_mm for plane in ordered])
    sideways = offsets - np.outer(offsets @ normal, normal)
    shift = float(np.linalg.norm(sideways, axis=1).max())
    if shift > _SHIFT_TOLERANCE * min(first.spacing_mm):
        raise VolumeError(
            "TILTED_GANTRY",
            f"the slices are shifted sideways against each other by up to {shift:.1f} mm (tilted gantry?); "
            "resample the series to a grid with right angles",
        )


def _ordinal(number: int) -> str:
    ending = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"


def _triple(values: NDArray[np.float64]) -> tuple[float, float, float]:
    first, second, third = (float(x) for x in values)
    return (first, second, third)
