"""Implicit shapes in patient space, from which the synthetic anatomy is put together."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

#: float32 in practice; the stubs widen every arithmetic with a Python float
Field = npt.NDArray[np.floating]
Inside = npt.NDArray[np.bool_]
Point = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Space:
    """Patient coordinates of every voxel, in millimetres: x to the left, y to the back, z to the head.

    Each array broadcasts to the volume's shape (k, j, i); after a deformation all three have that shape.
    """

    x: Field
    y: Field
    z: Field


@dataclass(frozen=True, kw_only=True)
class Ellipsoid:
    """An axis-parallel ellipsoid."""

    centre_mm: Point
    semi_mm: Point

    def level(self, space: Space) -> Field:
        """Squared normalised radius: below 1 inside, above 1 outside."""
        (cx, cy, cz), (ax, ay, az) = self.centre_mm, self.semi_mm
        return ((space.x - cx) / ax) ** 2 + ((space.y - cy) / ay) ** 2 + ((space.z - cz) / az) ** 2

    def inside(self, space: Space) -> Inside:
        return self.level(space) < 1.0


def oval(space: Space, *, half_width_mm: float, half_depth_mm: float, power: float = 2.4) -> Field:
    """Normalised in-plane radius of a rounded rectangle around the body's axis: below 1 inside."""
    across = np.abs(space.x / half_width_mm) ** power
    return (across + np.abs(space.y / half_depth_mm) ** power) ** (1.0 / power)


def column(space: Space, *, x_mm: float, y_mm: float, semi_mm: tuple[float, float]) -> Field:
    """Squared normalised in-plane radius of an elliptic cylinder along z: below 1 inside."""
    return ((space.x - x_mm) / semi_mm[0]) ** 2 + ((space.y - y_mm) / semi_mm[1]) ** 2


def tube(space: Space, path: Sequence[Point], radius_mm: float) -> Inside:
    """Points nearer than `radius_mm` to a polyline."""
    inside = np.zeros(np.broadcast_shapes(space.x.shape, space.y.shape, space.z.shape), dtype=bool)
    for start, end in pairwise(path):
        along = np.subtract(end, start)
        offsets = (space.x - start[0], space.y - start[1], space.z - start[2])
        position = sum(offset * step for offset, step in zip(offsets, along, strict=True)) / float(along @ along)
        position = np.clip(position, 0.0, 1.0)
        squared = sum((offset - position * step) ** 2 for offset, step in zip(offsets, along, strict=True))
        inside |= squared < radius_mm**2
    return inside


def waves(
    space: Space,
    rng: np.random.Generator,
    *,
    count: int,
    wavelength_mm: tuple[float, float],
    amplitude: float,
) -> Field:
    """A smooth random field: a sum of plane waves with random directions, lengths and phases."""
    total = np.zeros(np.broadcast_shapes(space.x.shape, space.y.shape, space.z.shape), dtype=np.float32)
    for _ in range(count):
        direction = rng.standard_normal(3)
        direction *= 2.0 * np.pi / (np.linalg.norm(direction) * rng.uniform(*wavelength_mm))
        kx, ky, kz = (np.float32(component) for component in direction)
        total += np.cos(kx * space.x + ky * space.y + kz * space.z + np.float32(rng.uniform(0.0, 2.0 * np.pi)))
    return total * np.float32(amplitude / np.sqrt(count))


def deform(space: Space, rng: np.random.Generator, *, amplitude_mm: float) -> Space:
    """Bend the coordinates smoothly, so that no two subjects have the same shapes."""
    shape = np.broadcast_shapes(space.x.shape, space.y.shape, space.z.shape)
    moved = [
        np.broadcast_to(axis, shape) + waves(space, rng, count=4, wavelength_mm=(110.0, 260.0), amplitude=amplitude_mm)
        for axis in (space.x, space.y, space.z)
    ]
    return Space(x=moved[0], y=moved[1], z=moved[2])
