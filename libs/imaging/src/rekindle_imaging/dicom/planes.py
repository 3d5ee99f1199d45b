"""Planes: one image each, with its place in the patient and how its values are to be read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from rekindle_imaging.dicom.instances import ENHANCED, numbers_of, value_of
from rekindle_imaging.errors import VolumeError
from rekindle_imaging.geometry import MAX_SPACING_MM

_MAX_SIDE: Final = 65_535
#: Functional group -> the elements that are taken from it.
_GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "PlanePositionSequence": ("ImagePositionPatient",),
    "PlaneOrientationSequence": ("ImageOrientationPatient",),
    "PixelMeasuresSequence": ("PixelSpacing", "SliceThickness"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
}


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Plane:
    """One slice as a file gives it; directions and position in LPS millimetres."""

    #: Index of the instance in the series, and of its frame, from 0.
    instance: int
    frame: int
    rows: int
    columns: int
    #: Centre of the first pixel.
    position_mm: NDArray[np.float64]
    #: Unit vectors (3, 2): along a row (axis i), down a column (axis j).
    directions: NDArray[np.float64]
    #: Between pixels along i and j.
    spacing_mm: tuple[float, float]
    thickness_mm: float | None
    slope: float
    intercept: float

    @property
    def normal(self) -> NDArray[np.float64]:
        """The unit vector that completes the two directions to a right-handed system."""
        return np.cross(self.directions[:, 0], self.directions[:, 1])


def planes_of(dataset: Dataset, instance: int, *, sop_class: str, modality: str, max_voxels: int) -> list[Plane]:
    """The planes of an instance: one, or one per frame of an enhanced image.

    Raises VolumeError: MISSING_TAG, BAD_GEOMETRY, BAD_PIXELS, BAD_RESCALE, MULTIFRAME, TOO_LARGE.
    """
    rows, columns = (_side(dataset, keyword) for keyword in ("Rows", "Columns"))
    frames = _frames(dataset)
    if rows * columns * frames > max_voxels:
        raise VolumeError(
            "TOO_LARGE", f"an image claims {rows * columns * frames} pixels; at most {max_voxels} are taken"
        )
    if sop_class not in ENHANCED:
        if frames != 1:
            raise VolumeError(
                "MULTIFRAME", "an image has several frames but is no Enhanced CT or MR; send single slices"
            )
        sources = [dataset]
    else:
        sources = _functional_groups(dataset, frames)
    return [
        _plane(source, instance=instance, frame=frame, rows=rows, columns=columns, modality=modality)
        for frame, source in enumerate(sources)
    ]


def _plane(source: Dataset, *, instance: int, frame: int, rows: int, columns: int, modality: str) -> Plane:
    position = _needed(source, "ImagePositionPatient", 3)
    orientation = _needed(source, "ImageOrientationPatient", 6)
    between_rows, between_columns = _needed(source, "PixelSpacing", 2)
    thickness = numbers_of(source, "SliceThickness", 1)
    if not (0 < between_rows <= MAX_SPACING_MM and 0 < between_columns <= MAX_SPACING_MM):
        raise VolumeError("BAD_GEOMETRY", "PixelSpacing is zero, negative or beyond belief; repair the headers")
    slope, intercept = _rescale(source, modality)
    return Plane(
        instance=instance,
        frame=frame,
        rows=rows,
        columns=columns,
        position_mm=np.asarray(position),
        directions=_directions(orientation),
        spacing_mm=(between_columns, between_rows),
        thickness_mm=thickness[0] if thickness and thickness[0] > 0 else None,
        slope=slope,
        intercept=intercept,
    )


def _directions(orientation: tuple[float, ...]) -> NDArray[np.float64]:
    axes = np.asarray(orientation).reshape(2, 3).T
    if np.abs(axes.T @ axes - np.eye(2)).max() > 1e-3:
        raise VolumeError(
            "BAD_GEOMETRY", "ImageOrientationPatient is no pair of unit vectors at right angles; repair the headers"
        )
    return axes


def _rescale(source: Dataset, modality: str) -> tuple[float, float]:
    slope, intercept = (numbers_of(source, keyword, 1) for keyword in ("RescaleSlope", "RescaleIntercept"))
    if modality == "CT" and (slope is None or intercept is None):
        raise VolumeError("MISSING_TAG", "a CT image lacks RescaleSlope or RescaleIntercept, so its HU are unknown")
    if slope is not None and slope[0] == 0:
        raise VolumeError("BAD_RESCALE", "RescaleSlope is 0, which makes every pixel alike; repair the headers")
    return (slope[0] if slope else 1.0, intercept[0] if intercept else 0.0)


def _functional_groups(dataset: Dataset, frames: int) -> list[Dataset]:
    """One data set per frame that holds what the frame's own and the shared functional groups say."""
    per_frame: Any = value_of(dataset, "PerFrameFunctionalGroupsSequence") or []
    shared: Any = value_of(dataset, "SharedFunctionalGroupsSequence") or []
    if len(per_frame) != frames:
        raise VolumeError("MULTIFRAME", "an enhanced image does not describe each of its frames; export it again")
    return [_merged([own, *shared]) for own in per_frame]


def _merged(groups: list[Dataset]) -> Dataset:
    merged = Dataset()
    for group in groups:
        for sequence, keywords in _GROUPS.items():
            for item in value_of(group, sequence) or []:
                for keyword in keywords:
                    if keyword not in merged and keyword in item:
                        merged[keyword] = item[keyword]
    return merged


def _frames(dataset: Dataset) -> int:
    if "NumberOfFrames" not in dataset:
        return 1
    frames = numbers_of(dataset, "NumberOfFrames", 1)
    return max(1, int(frames[0])) if frames else 1


def _side(dataset: Dataset, keyword: str) -> int:
    value = value_of(dataset, keyword)
    if not isinstance(value, int) or not 1 <= value <= _MAX_SIDE:
        raise VolumeError("BAD_PIXELS", f"{keyword} must be a whole number from 1 to {_MAX_SIDE}")
    return value


def _needed(source: Dataset, keyword: str, count: int) -> tuple[float, ...]:
    found = numbers_of(source, keyword, count)
    if found is None:
        raise VolumeError("MISSING_TAG", f"an image lacks {keyword}; without it nobody knows where the slice lies")
    return found
