"""Receipts: whether a mask fits its image and organs, and how much work it holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rekindle.errors import InvalidInput
from rekindle.vocabulary import Organ, OrganEffort
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.masks import added_path_length_mm, dice, removed_components, voxels_changed

from rekindle_inference.domain.records import OrganFound

#: Corners of a mask may lie this far from the image's: what float32 headers lose.
GEOMETRY_TOLERANCE_MM = 1e-2
_MAX_LISTED = 16


def check_geometry(mask: Geometry, image: Geometry) -> None:
    """InvalidInput (GEOMETRY_MISMATCH) naming what differs, unless both are one grid."""
    if mask.matches(image, GEOMETRY_TOLERANCE_MM):
        return
    pairs = [
        ("size", mask.size, image.size, 0.0),
        ("spacing", mask.spacing_mm, image.spacing_mm, 1e-5),
        ("origin", mask.origin_mm, image.origin_mm, GEOMETRY_TOLERANCE_MM),
        ("direction", mask.direction, image.direction, 1e-4),
    ]
    differing = [
        f"{name} {_numbers(of_mask)} instead of {_numbers(of_image)}"
        for name, of_mask, of_image, tolerance in pairs
        if max(abs(a - b) for a, b in zip(of_mask, of_image, strict=True)) > tolerance
    ]
    words = ", ".join(differing) or "corner positions"
    raise InvalidInput(
        f"the mask does not lie on the image's grid: {words}; save it with the image's geometry",
        reason="GEOMETRY_MISMATCH",
    )


def check_labels(voxels: NDArray[np.uint8], organs: Sequence[Organ]) -> None:
    """InvalidInput (UNKNOWN_LABEL_VALUES) listing label values of `voxels` (k, j, i) that no organ has."""
    present = np.flatnonzero(np.bincount(voxels.ravel(), minlength=256))
    known = {0} | {organ.label_value for organ in organs}
    unknown = [int(value) for value in present if int(value) not in known]
    if unknown:
        more = f" and {len(unknown) - _MAX_LISTED} more" if len(unknown) > _MAX_LISTED else ""
        listed = ", ".join(str(value) for value in unknown[:_MAX_LISTED])
        expected = ", ".join(f"{organ.label_value} ({organ.id})" for organ in organs)
        raise InvalidInput(
            f"the mask has label values that no organ has: {listed}{more}; known are 0 and {expected}",
            reason="UNKNOWN_LABEL_VALUES",
            metadata={"values": listed},
        )


def found_organs(voxels: NDArray[np.uint8], organs: Sequence[Organ], geometry: Geometry) -> tuple[OrganFound, ...]:
    """Voxels and millilitres of each organ in label values (k, j, i)."""
    counts = np.bincount(voxels.ravel(), minlength=256)
    return tuple(
        OrganFound(
            organ_id=organ.id,
            voxels=int(counts[organ.label_value]),
            volume_ml=float(counts[organ.label_value]) * geometry.voxel_ml,
        )
        for organ in organs
    )


def correction_effort(
    coarse: NDArray[np.uint8] | None,
    corrected: NDArray[np.uint8],
    organs: Sequence[Organ],
    geometry: Geometry,
) -> tuple[OrganEffort, ...]:
    """Effort per organ from a coarse label (None: from nothing) to a corrected one; label values (k, j, i)."""
    efforts: list[OrganEffort] = []
    for organ in organs:
        wanted = corrected == organ.label_value
        given: NDArray[Any] = np.zeros_like(wanted) if coarse is None else np.equal(coarse, organ.label_value)
        efforts.append(
            OrganEffort(
                organ_id=organ.id,
                voxels_changed=voxels_changed(given, wanted),
                added_path_length_mm=added_path_length_mm(given, wanted, geometry),
                dice=dice(given, wanted),
                components_removed=removed_components(given, wanted),
            )
        )
    return tuple(efforts)


def _numbers(values: Sequence[float]) -> str:
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
