"""Where a volume's voxels lie in the patient: ITK's convention, LPS, millimetres."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from rekindle_imaging.errors import VolumeError

#: Largest believable distance between two voxels; a header that says more is wrong or hostile.
MAX_SPACING_MM = 1000.0
_MAX_ORIGIN_MM = 1e6
_KEYS = {"size", "spacing_mm", "origin_mm", "direction"}

Triple = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Geometry:
    """A regular grid in space. All triples are in (i, j, k) order; arrays on the grid have shape (k, j, i).

    `direction` is nine floats, row-major: column c is the unit vector (LPS) along axis c.
    The centre of voxel (0, 0, 0) is at `origin_mm`. Raises VolumeError("BAD_GEOMETRY") for
    anything else.
    """

    size: tuple[int, int, int]
    spacing_mm: Triple
    origin_mm: Triple
    direction: tuple[float, ...]

    def __post_init__(self) -> None:
        size = _numbers(self.size, 3, "size")
        if any(n != int(n) or n < 1 for n in size):
            raise VolumeError("BAD_GEOMETRY", "every size must be a whole number of at least 1")
        object.__setattr__(self, "size", tuple(int(n) for n in size))
        object.__setattr__(self, "spacing_mm", _numbers(self.spacing_mm, 3, "spacing_mm"))
        object.__setattr__(self, "origin_mm", _numbers(self.origin_mm, 3, "origin_mm"))
        object.__setattr__(self, "direction", _numbers(self.direction, 9, "direction"))
        if any(s <= 0 or s > MAX_SPACING_MM for s in self.spacing_mm):
            raise VolumeError("BAD_GEOMETRY", f"every spacing must be above 0 and at most {MAX_SPACING_MM:g} mm")
        if any(abs(x) > _MAX_ORIGIN_MM for x in self.origin_mm):
            raise VolumeError("BAD_GEOMETRY", "the origin is more than a kilometre away")
        gram = self.axes.T @ self.axes
        if np.abs(gram - np.eye(3)).max() > 1e-3:
            raise VolumeError("BAD_GEOMETRY", "the direction is not orthonormal (sheared or scaled axes)")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape (k, j, i) of an array on this grid."""
        return (self.size[2], self.size[1], self.size[0])

    @property
    def axes(self) -> NDArray[np.float64]:
        """Direction as a 3 x 3 matrix; column c is the unit vector of axis c."""
        return np.asarray(self.direction, dtype=np.float64).reshape(3, 3)

    @property
    def voxel_ml(self) -> float:
        """Volume of one voxel in millilitres."""
        return self.spacing_mm[0] * self.spacing_mm[1] * self.spacing_mm[2] / 1000.0

    @property
    def voxels(self) -> int:
        """Number of voxels."""
        return self.size[0] * self.size[1] * self.size[2]

    def physical_point(self, index_ijk: Sequence[float]) -> Triple:
        """LPS position in mm of a (fractional) index (i, j, k)."""
        offset = self.axes @ (np.asarray(index_ijk, dtype=np.float64) * np.asarray(self.spacing_mm))
        return cast("Triple", tuple(float(x) for x in offset + np.asarray(self.origin_mm)))

    def continuous_index(self, point_mm: Sequence[float]) -> Triple:
        """Fractional index (i, j, k) of an LPS position in mm: the inverse of `physical_point`."""
        offset = np.asarray(point_mm, dtype=np.float64) - np.asarray(self.origin_mm)
        index = np.linalg.solve(self.axes, offset) / np.asarray(self.spacing_mm)
        return cast("Triple", tuple(float(x) for x in index))

    def corners(self) -> NDArray[np.float64]:
        """LPS positions (8, 3) of the centres of the eight corner voxels."""
        last = [n - 1 for n in self.size]
        index = [(i, j, k) for i in (0, last[0]) for j in (0, last[1]) for k in (0, last[2])]
        return np.asarray([self.physical_point(each) for each in index])

    def box(self, start_ijk: Sequence[int], size_ijk: Sequence[int]) -> "Geometry":
        """The part of this grid that begins at voxel `start_ijk`; may reach beyond the grid."""
        i, j, k = size_ijk
        return Geometry(
            size=(i, j, k),
            spacing_mm=self.spacing_mm,
            origin_mm=self.physical_point(start_ijk),
            direction=self.direction,
        )

    def matches(self, other: "Geometry", tolerance_mm: float = 1e-2) -> bool:
        """Whether both have the same size and every corner voxel lies within `tolerance_mm` of the
        other's."""
        if self.size != other.size:
            return False
        distance = np.linalg.norm(self.corners() - other.corners(), axis=1)
        if float(distance.max()) > tolerance_mm:
            return False
        # A single slice has no corners that would show another thickness or a turned normal.
        thickness = np.abs(np.subtract(self.spacing_mm, other.spacing_mm)).max()
        turned = np.abs(self.axes - other.axes).max()
        return bool(thickness <= tolerance_mm and turned <= 1e-2)

    def to_dict(self) -> dict[str, Any]:
        """Plain lists, for JSON."""
        return {
            "size": list(self.size),
            "spacing_mm": list(self.spacing_mm),
            "origin_mm": list(self.origin_mm),
            "direction": list(self.direction),
        }

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Geometry":
        """The inverse of `to_dict`. Raises VolumeError("BAD_GEOMETRY") on missing, unknown or wrong
        fields."""
        if set(fields) != _KEYS:
            raise VolumeError("BAD_GEOMETRY", f"a geometry has exactly the fields {sorted(_KEYS)}")
        return cls(
            size=fields["size"],
            spacing_mm=fields["spacing_mm"],
            origin_mm=fields["origin_mm"],
            direction=fields["direction"],
        )


def _numbers(values: Any, count: int, name: str) -> tuple[float, ...]:
    if not isinstance(values, (list, tuple, np.ndarray)) or len(cast("Sequence[Any]", values)) != count:
        raise VolumeError("BAD_GEOMETRY", f"{name} must be {count} numbers")
    items = cast("Sequence[Any]", values)
    if any(isinstance(v, bool) or not isinstance(v, (int, float, np.integer, np.floating)) for v in items):
        raise VolumeError("BAD_GEOMETRY", f"{name} must be {count} numbers")
    # Adding 0.0 turns -0.0 into 0.0, so that equal grids have equal bytes in JSON.
    numbers = tuple(float(v) + 0.0 for v in items)
    if not np.isfinite(numbers).all():
        raise VolumeError("BAD_GEOMETRY", f"{name} must be finite")
    return numbers
