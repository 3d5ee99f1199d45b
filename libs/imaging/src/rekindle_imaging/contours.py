"""Contours of masks, slice by slice: how much line there is, and how much of it must be drawn anew."""

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rekindle_imaging.boxes import bounding_box
from rekindle_imaging.geometry import Geometry


def boundary_length_mm(mask: NDArray[Any], geometry: Geometry) -> float:
    """Length of the in-plane contours of a boolean mask (k, j, i), summed over its slices, in mm.

    Estimator: marching squares at one half, so a line crosses each 2 x 2 cell of pixels along an edge or cuts
    a corner. Right for straight edges along rows and columns, at any spacing (each corner saves 0.59
    of a square pixel); too long by 5.5 % for a large circle of square pixels, by 9 % at a spacing of 2 to 1.
    """
    box = bounding_box(mask)
    if box is None:
        return 0.0
    return float(_cell_lengths_mm(mask[box], geometry).sum())


def added_path_length_mm(
    prediction: NDArray[Any], truth: NDArray[Any], geometry: Geometry, tolerance_mm: float = 3.0
) -> float:
    """Length of the truth's contour that the prediction does not offer, in mm, summed over slices.

    Vaassen et al. 2020: the truth's in-plane contour (k, j, i) that lies farther than `tolerance_mm` from the
    prediction's contour in the same slice, so what must be drawn by hand. Length as in `boundary_length_mm`.
    A slice without a prediction counts whole; one without truth counts nothing, since erasing is no drawing.
    """
    if prediction.shape != truth.shape:
        raise ValueError(f"masks of different shapes: {prediction.shape} and {truth.shape}")
    box = bounding_box(truth)
    if box is None:
        return 0.0
    spacing = (geometry.spacing_mm[1], geometry.spacing_mm[0])
    box = _grown(box, truth.shape, tuple(int(np.ceil(tolerance_mm / s)) + 1 for s in spacing))
    wanted = _cell_lengths_mm(truth[box], geometry)
    offered = _cell_lengths_mm(prediction[box], geometry, beyond=_padded(prediction, box)) > 0
    added = 0.0
    for lengths, contour in zip(wanted, offered, strict=True):
        line = lengths > 0
        if contour.any() and line.any():
            distance = cast("NDArray[np.float64]", ndimage.distance_transform_edt(~contour, sampling=spacing))
            line &= distance > tolerance_mm
        added += float(lengths[line].sum())
    return added


def _cell_lengths_mm(mask: NDArray[Any], geometry: Geometry, beyond: NDArray[Any] | None = None) -> NDArray[np.float32]:
    """Contour length in each cell between four pixels: (k, j + 1, i + 1); pixels around the mask are
    `beyond` or off."""
    padded = np.pad(mask.astype(bool, copy=False), ((0, 0), (1, 1), (1, 1))) if beyond is None else beyond
    bits = padded.astype(np.uint8)
    code = bits[:, :-1, :-1] | bits[:, :-1, 1:] << 1 | bits[:, 1:, :-1] << 2 | bits[:, 1:, 1:] << 3
    return _lengths_by_code(geometry.spacing_mm[0], geometry.spacing_mm[1])[code]


def _lengths_by_code(column_mm: float, row_mm: float) -> NDArray[np.float32]:
    """Line length for the 16 patterns of a cell; bits: top left, top right, bottom left, bottom right."""
    corner = float(np.hypot(column_mm, row_mm)) / 2
    lengths = np.zeros(16, dtype=np.float32)
    lengths[[1, 2, 4, 8, 7, 11, 13, 14]] = corner
    lengths[[0b0011, 0b1100]] = column_mm
    lengths[[0b0101, 0b1010]] = row_mm
    lengths[[0b1001, 0b0110]] = 2 * corner
    return lengths


def _grown(box: tuple[slice, ...], shape: tuple[int, ...], margin: tuple[int, ...]) -> tuple[slice, ...]:
    """The box with a margin in plane, inside the array."""
    plane = zip(box[1:], margin, shape[1:], strict=True)
    return (box[0], *(slice(max(s.start - m, 0), min(s.stop + m, n)) for s, m, n in plane))


def _padded(mask: NDArray[Any], box: tuple[slice, ...]) -> NDArray[Any]:
    """The box of the mask with one pixel around it in plane: what lies there, or nothing at the array's
    edge."""
    around = _grown(box, mask.shape, (1, 1))
    missing = [(0, 0)]
    for inner, outer in zip(box[1:], around[1:], strict=True):
        missing.append((1 - (inner.start - outer.start), 1 - (outer.stop - inner.stop)))
    return np.pad(mask[around].astype(bool, copy=False), missing)
