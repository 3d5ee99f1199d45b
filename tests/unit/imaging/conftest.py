"""Volumes that are described by a formula in space, on grids of every awkward kind."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume


def rotation(x: float, y: float, z: float) -> NDArray[np.float64]:
    """Rotation about the three axes, angles in degrees."""
    a, b, c = np.deg2rad([x, y, z])
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_y = np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]])
    about_z = np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]])
    return about_z @ about_y @ about_x


_EYE = np.eye(3)
_KINDS = {
    "plain": (_EYE, (3.0, 3.0, 3.0)),
    "anisotropic": (_EYE, (1.7, 2.6, 6.5)),
    "flipped": (_EYE * [1, -1, -1], (2.5, 2.5, 5.0)),
    "left-handed": (_EYE * [-1, 1, 1], (2.5, 2.0, 5.0)),
    "permuted": (_EYE[:, [2, 0, 1]], (5.0, 2.2, 3.1)),
    "sagittal": (_EYE[:, [1, 2, 0]] * [1, -1, 1], (2.2, 2.4, 4.6)),
    "rotated": (rotation(0, 0, 25), (2.4, 2.4, 5.0)),
    "oblique": (rotation(12, -17, 9), (2.1, 2.8, 4.4)),
    "oblique permuted": (rotation(-10, 14, 20)[:, [1, 2, 0]] * [1, -1, 1], (2.7, 2.3, 3.6)),
}


def awkward(kind: str, extent_mm: float = 160.0) -> Geometry:
    """A grid of a kind around a point that is not the origin, `extent_mm` wide along each axis."""
    axes, spacing = _KINDS[kind]
    size = [int(np.ceil(extent_mm / s)) for s in spacing]
    centre = np.array([-31.3, 47.9, 812.7])
    origin = centre - axes @ ((np.array(size) - 1) / 2 * spacing)
    return Geometry(
        size=(size[0], size[1], size[2]),
        spacing_mm=spacing,
        origin_mm=(float(origin[0]), float(origin[1]), float(origin[2])),
        direction=tuple(float(x) for x in axes.ravel()),
    )


def positions(geometry: Geometry) -> NDArray[np.float64]:
    """LPS positions (k, j, i, 3) of all voxels, from the definition of the grid and nothing else."""
    k, j, i = np.meshgrid(*(np.arange(n) for n in geometry.shape), indexing="ij")
    index = np.stack([i, j, k], axis=-1) * np.array(geometry.spacing_mm)
    return index @ np.array(geometry.direction).reshape(3, 3).T + np.array(geometry.origin_mm)


def ramp(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """A linear function of space with a different slope along each of its axes."""
    return 0.9 * points[..., 0] - 0.6 * points[..., 1] + 0.4 * (points[..., 2] - 800)


def liver(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    """An ellipsoid of a liver's size, off the middle."""
    centre, radii = np.array([-45.0, 42.0, 815.0]), np.array([60.0, 48.0, 55.0])
    return (((points - centre) / radii) ** 2).sum(axis=-1) <= 1


@pytest.fixture(params=sorted(_KINDS))
def geometry(request: pytest.FixtureRequest) -> Geometry:
    """Each kind of grid in turn."""
    return awkward(request.param)


@pytest.fixture
def make_geometry() -> Callable[..., Geometry]:
    """Makes a grid of a named kind."""
    return awkward


@pytest.fixture
def at() -> Callable[[Geometry], NDArray[np.float64]]:
    """Positions of the voxels of a grid."""
    return positions


@pytest.fixture
def ramp_at() -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """The linear function of space."""
    return ramp


@pytest.fixture
def liver_mask() -> Callable[[Geometry], Volume]:
    """The ellipsoid as a mask on a grid."""
    return lambda grid: Volume(liver(positions(grid)).astype(np.uint8), grid)
