"""A volume that compresses, resamples and segments about as CT of an abdomen does."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume

NOISE_HU = 15.0


def abdomen(slices: int, side: int, *, in_plane_mm: float, slice_mm: float, seed: int = 0) -> tuple[Volume, Volume]:
    """Image int16 and mask uint8 (0, liver 1, spleen 2), both (slices, side, side)."""
    rng = np.random.default_rng(seed)
    geometry = Geometry(
        size=(side, side, slices),
        spacing_mm=(in_plane_mm, in_plane_mm, slice_mm),
        origin_mm=(0.0, 0.0, 0.0),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    image = np.empty(geometry.shape, dtype=np.int16)
    mask = np.empty(geometry.shape, dtype=np.uint8)
    for k in range(slices):
        mask[k] = _organs(side, (k + 0.5) / slices)
        image[k] = _scan(mask[k], rng)
    return Volume(image, geometry), Volume(mask, geometry)


def _ellipse(side: int, x: float, y: float, half_x: float, half_y: float) -> NDArray[np.bool_]:
    """Inside of an ellipse, in units of half the image's width from its middle."""
    axis = (np.arange(side, dtype=np.float32) + 0.5) / side * 2 - 1
    return ((axis[None, :] - x) / half_x) ** 2 + ((axis[:, None] - y) / half_y) ** 2 < 1


def _organs(side: int, height: float) -> NDArray[np.uint8]:
    """Labels of the slice at `height`, from 0 to 1."""
    labels = np.zeros((side, side), dtype=np.uint8)
    for label, middle, extent, x, y, half in ((1, 0.55, 0.3, -0.35, -0.05, 0.32), (2, 0.6, 0.2, 0.5, 0.15, 0.15)):
        share = 1 - ((height - middle) / extent) ** 2
        if share > 0:
            labels[_ellipse(side, x, y, half * share**0.5, half * share**0.5)] = label
    return labels


def _scan(labels: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.int16]:
    """HU of a slice: nothing outside the scanner's circle, air, fat, muscle, organs, correlated noise."""
    side = len(labels)
    hu = np.full(labels.shape, -1000, dtype=np.float32)
    hu[_ellipse(side, 0, 0, 0.84, 0.64)] = -100
    hu[_ellipse(side, 0, 0, 0.76, 0.56)] = 50
    hu[labels == 1] = 110
    hu[labels == 2] = 130
    noise = rng.standard_normal(labels.shape, dtype=np.float32)
    hu += NOISE_HU * (noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)) / 3**0.5
    hu[~_ellipse(side, 0, 0, 1, 1)] = -1024
    return np.clip(np.rint(hu), -1024, 3071).astype(np.int16)
