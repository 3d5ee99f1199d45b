"""The grid that a network sees: parallel to the volume's own axes, in their nearest-LPS order."""

import math
from itertools import permutations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rekindle_imaging.boxes import bounding_box, label_components
from rekindle_imaging.errors import VolumeError
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.preprocessing_spec import Preprocessing
from rekindle_imaging.volume import Volume

#: Slices of a model grid; a volume that needs more has a broken header.
MAX_SLICES = 4096
#: Room above and below the organs of a labelled seed case.
ORGAN_MARGIN_MM = 25.0
_BODY_LOOK_MM = 4.0
_AIR_BELOW_HU = -300.0


def nearest_lps(geometry: Geometry) -> tuple[Geometry, tuple[int, int, int], tuple[bool, bool, bool]]:
    """The same voxels with axes reordered and flipped so that they run as nearly as can be to the patient's
    left, posterior and superior; oblique stays oblique.

    Returns the geometry, for each new axis the old one, and whether it is reversed.
    """
    axes = geometry.axes
    # Of the six assignments the one that agrees best; ties go to the earliest, so equal volumes agree.
    order = max(permutations(range(3)), key=lambda p: round(sum(abs(axes[r, p[r]]) for r in range(3)), 9))
    a, b, c = order
    flips = (bool(axes[0, a] < 0), bool(axes[1, b] < 0), bool(axes[2, c] < 0))
    start = [0, 0, 0]
    for axis, flip in zip(order, flips, strict=True):
        start[axis] = geometry.size[axis] - 1 if flip else 0
    signs = np.where(flips, -1.0, 1.0)
    oriented = Geometry(
        size=(geometry.size[a], geometry.size[b], geometry.size[c]),
        spacing_mm=(geometry.spacing_mm[a], geometry.spacing_mm[b], geometry.spacing_mm[c]),
        origin_mm=geometry.physical_point(start),
        direction=tuple(float(x) for x in (axes[:, list(order)] * signs).ravel()),
    )
    return oriented, (a, b, c), flips


def oriented_view(volume: Volume) -> Volume:
    """The volume on its nearest-LPS grid, as a view: no voxel is copied."""
    geometry, order, flips = nearest_lps(volume.geometry)
    by_ijk = volume.voxels.transpose(2, 1, 0).transpose(order)
    step = tuple(slice(None, None, -1) if flip else slice(None) for flip in flips)
    return Volume(by_ijk[step].transpose(2, 1, 0), geometry)


def model_grid(volume: Volume, preprocessing: Preprocessing, organ_mask: Volume | None) -> Geometry:
    """The grid for a volume: `preprocessing.size` pixels in plane around the body's middle (never looking at
    labels), and every slice of the volume; with `organ_mask` only those within 25 mm of its organs.

    With another slice spacing the slices are spread evenly around the middle of the extent and reach beyond
    it by less than one of them. Raises VolumeError: GEOMETRY_MISMATCH, TOO_LARGE.
    """
    view = oriented_view(volume)
    middle = [(n - 1) / 2 for n in view.geometry.size]
    if preprocessing.crop == "body":
        middle[:2] = body_middle(view, preprocessing)
    first, last = (0, view.geometry.size[2] - 1) if organ_mask is None else _organ_slices(volume, organ_mask)
    middle[2] = (first + last) / 2
    thickness = view.geometry.spacing_mm[2]
    spacing = preprocessing.slice_spacing_mm or thickness
    slices = max(1, math.ceil((last - first + 1) * thickness / spacing - 1e-6))
    if slices > MAX_SLICES:
        raise VolumeError("TOO_LARGE", f"the volume spans more than {MAX_SLICES} slices of {spacing:g} mm")
    rows, columns = preprocessing.size
    return centred_grid(
        view.geometry,
        middle,
        (columns, rows, slices),
        (preprocessing.spacing_mm[1], preprocessing.spacing_mm[0], spacing),
    )


def centred_grid(
    parallel_to: Geometry,
    middle_ijk: list[float],
    size: tuple[int, int, int],
    spacing_mm: tuple[float, float, float],
) -> Geometry:
    """A grid with the axes of `parallel_to` whose middle lies at that grid's fractional index
    `middle_ijk`."""
    centre = np.asarray(parallel_to.physical_point(middle_ijk))
    reach = np.asarray([(n - 1) / 2 * s for n, s in zip(size, spacing_mm, strict=True)])
    x, y, z = (float(v) for v in centre - parallel_to.axes @ reach)
    return Geometry(size=size, spacing_mm=spacing_mm, origin_mm=(x, y, z), direction=parallel_to.direction)


def body_middle(view: Volume, preprocessing: Preprocessing) -> list[float]:
    """In-plane middle (i, j) of the body's box: the largest component above air, found on about 4 mm voxels.

    Air ends at -300 HU under a fixed window (at the minimum, if the image was clipped above that), and at a
    tenth of the way from the 1st to the 99th percentile under a percentile window. The middle of the volume
    when nothing stands out.
    """
    strides = [max(1, int(_BODY_LOOK_MM / s)) for s in view.geometry.spacing_mm]
    look = view.voxels[:: strides[2], :: strides[1], :: strides[0]]
    body = look > _air_threshold(look, preprocessing)
    # Opening in plane cuts off table and lines.
    cleaned = ndimage.binary_opening(body, structure=np.ones((1, 3, 3), dtype=bool))
    labels = label_components(cleaned, corners=False)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    box = bounding_box(labels == int(sizes.argmax())) if sizes.any() else None
    if box is None:
        return [(n - 1) / 2 for n in view.geometry.size[:2]]
    return [(box[axis].start + box[axis].stop - 1) / 2 * strides[2 - axis] for axis in (2, 1)]


def _air_threshold(look: NDArray[Any], preprocessing: Preprocessing) -> float:
    if preprocessing.window.kind == "fixed":
        return max(_AIR_BELOW_HU, float(look.min()))
    low, high = np.percentile(look, [1, 99])
    return float(low + 0.1 * (high - low))


def _organ_slices(volume: Volume, organ_mask: Volume) -> tuple[int, int]:
    """First and last slice (of the nearest-LPS view) within 25 mm of an organ; all of them for an empty
    mask."""
    if not organ_mask.geometry.matches(volume.geometry):
        raise VolumeError("GEOMETRY_MISMATCH", "the mask lies on another grid than the image")
    view = oriented_view(organ_mask)
    hit = np.flatnonzero(view.voxels.any(axis=(1, 2)))
    last = view.geometry.size[2] - 1
    if hit.size == 0:
        return 0, last
    margin = math.ceil(ORGAN_MARGIN_MM / view.geometry.spacing_mm[2])
    return max(0, int(hit[0]) - margin), min(last, int(hit[-1]) + margin)
