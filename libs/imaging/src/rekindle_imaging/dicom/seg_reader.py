"""DICOM SEG in: a Segmentation object laid onto the grid of the image that it refers to."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from rekindle_imaging.dicom.codes import code_of
from rekindle_imaging.dicom.instances import guarded, numbers_of, read_whole, syntax_of, value_of
from rekindle_imaging.errors import VolumeError
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume

_SEGMENTATION: Final = "1.2.840.10008.5.1.4.1.1.66.4"
_NATIVE: Final = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)
_PLACE_TOLERANCE_MM: Final = 0.1
_DIRECTION_TOLERANCE: Final = 1e-3


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentClass:
    """What a segment may be: known by its label or by its code (scheme, value)."""

    organ_id: str
    label_value: int
    code: tuple[str, str] | None = None


def read_segmentation(
    data: memoryview, grid: Geometry, sop_instance_uids: Sequence[str], organs: Sequence[SegmentClass]
) -> Volume:
    """Label values uint8 (k, j, i) of a BINARY, uncompressed SEG on the grid of its image.

    A segment is the organ whose id is its label, or whose code is its property type. Slices without a frame
    are empty.
    Raises VolumeError: NOT_DICOM, NOT_A_MASK (another kind of object or of SEG), UNDECODABLE_PIXELS, TRUNCATED,
    UNKNOWN_SEGMENT, OVERLAPPING_SEGMENTS, UNKNOWN_INSTANCE, GEOMETRY_MISMATCH, BAD_GEOMETRY, MISSING_TAG.
    """
    dataset = read_whole(data, 1)
    with guarded(1):
        return _laid_onto(dataset, grid, set(sop_instance_uids), organs)


def _laid_onto(dataset: Dataset, grid: Geometry, known: set[str], organs: Sequence[SegmentClass]) -> Volume:
    if str(value_of(dataset, "SOPClassUID")) != _SEGMENTATION or value_of(dataset, "SegmentationType") != "BINARY":
        raise VolumeError("NOT_A_MASK", "the file is no BINARY DICOM Segmentation; export the mask as one")
    values = _label_values(dataset, organs)
    groups = _frames(dataset)
    pixels = _pixels(dataset, grid, len(groups))
    voxels = np.zeros(grid.shape, dtype=np.uint8)
    shared: Any = value_of(dataset, "SharedFunctionalGroupsSequence") or []
    for frame, own in enumerate(groups):
        _check_references(own, known)
        k = _slice([own, *shared], grid)
        value = values.get(_segment_number(own, shared))
        if value is None:
            raise VolumeError("UNKNOWN_SEGMENT", "a frame belongs to a segment that the file does not describe")
        _paint(voxels[k], pixels[frame], value)
    return Volume(voxels, grid)


def _label_values(dataset: Dataset, organs: Sequence[SegmentClass]) -> dict[int, int]:
    """Segment number -> label value."""
    values: dict[int, int] = {}
    for segment in value_of(dataset, "SegmentSequence") or []:
        number, label = value_of(segment, "SegmentNumber"), str(value_of(segment, "SegmentLabel") or "")
        organ = next((o for o in organs if o.organ_id == label.strip()), None) or _by_code(segment, organs)
        if organ is None or not isinstance(number, int):
            known = ", ".join(o.organ_id for o in organs)
            raise VolumeError(
                "UNKNOWN_SEGMENT", f"a segment is none of the organs {known}, by its label or its code; name it so"
            )
        values[number] = organ.label_value
    return values


def _by_code(segment: Dataset, organs: Sequence[SegmentClass]) -> SegmentClass | None:
    for item in value_of(segment, "SegmentedPropertyTypeCodeSequence") or []:
        if value_of(item, "SegmentedPropertyTypeModifierCodeSequence"):
            continue  # left or right: the code alone does not tell which
        stated = (str(value_of(item, "CodingSchemeDesignator")), str(value_of(item, "CodeValue")))
        for organ in organs:
            built_in = code_of(organ.organ_id)
            own = None if built_in is None or built_in.side else (built_in.scheme, built_in.value)
            if stated == (organ.code or own):
                return organ
    return None


def _frames(dataset: Dataset) -> list[Dataset]:
    groups: Any = value_of(dataset, "PerFrameFunctionalGroupsSequence") or []
    stated = numbers_of(dataset, "NumberOfFrames", 1)
    if not groups or stated is None or int(stated[0]) != len(groups):
        raise VolumeError("NOT_A_MASK", "the segmentation does not describe each of its frames; export it again")
    return list(groups)


def _pixels(dataset: Dataset, grid: Geometry, frames: int) -> NDArray[np.bool_]:
    """(frames, rows, columns)."""
    syntax = syntax_of(dataset)
    rows, columns = value_of(dataset, "Rows"), value_of(dataset, "Columns")
    if (rows, columns) != (grid.size[1], grid.size[0]):
        raise VolumeError("GEOMETRY_MISMATCH", "the segmentation has other rows or columns than its image")
    if syntax not in _NATIVE or value_of(dataset, "BitsAllocated") != 1:
        raise VolumeError("UNDECODABLE_PIXELS", "the frames must be stored as single bits, without compression")
    bits, packed = frames * rows * columns, value_of(dataset, "PixelData")
    if not isinstance(packed, bytes) or len(packed) * 8 < bits:
        raise VolumeError("TRUNCATED", "the segmentation has fewer pixels than its header says; send it again")
    raw = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=bits, bitorder="little")
    return raw.reshape(frames, rows, columns).astype(np.bool_)


def _check_references(own: Dataset, known: set[str]) -> None:
    for derivation in value_of(own, "DerivationImageSequence") or []:
        for source in value_of(derivation, "SourceImageSequence") or []:
            uid = str(value_of(source, "ReferencedSOPInstanceUID") or "")
            if known and uid not in known:
                raise VolumeError("UNKNOWN_INSTANCE", "a frame refers to an instance that is not one of its image's")


def _slice(groups: Sequence[Dataset], grid: Geometry) -> int:
    position = _first(groups, "PlanePositionSequence", "ImagePositionPatient", 3)
    orientation = np.asarray(_first(groups, "PlaneOrientationSequence", "ImageOrientationPatient", 6)).reshape(2, 3).T
    if np.abs(orientation - grid.axes[:, :2]).max() > _DIRECTION_TOLERANCE:
        raise VolumeError("GEOMETRY_MISMATCH", "a frame is turned against its image; export it on the image's grid")
    i, j, k = grid.continuous_index(position)
    slice_index = round(k)
    off_mm = np.abs(np.asarray([i, j, k - slice_index]) * np.asarray(grid.spacing_mm)).max()
    if off_mm > _PLACE_TOLERANCE_MM or not 0 <= slice_index < grid.size[2]:
        raise VolumeError("GEOMETRY_MISMATCH", "a frame lies on no slice of its image; export it on the image's grid")
    return slice_index


def _paint(onto: NDArray[np.uint8], frame: NDArray[np.bool_], value: int) -> None:
    if (onto[frame] != 0).any():
        raise VolumeError("OVERLAPPING_SEGMENTS", "segments overlap: a voxel can belong to one organ only")
    onto[frame] = value


def _segment_number(own: Dataset, shared: Sequence[Dataset]) -> int:
    for group in (own, *shared):
        for item in value_of(group, "SegmentIdentificationSequence") or []:
            number = value_of(item, "ReferencedSegmentNumber")
            if isinstance(number, int):
                return number
    return 0


def _first(groups: Sequence[Dataset], sequence: str, keyword: str, count: int) -> tuple[float, ...]:
    for group in groups:
        for item in value_of(group, sequence) or []:
            found = numbers_of(item, keyword, count)
            if found is not None:
                return found
    raise VolumeError("MISSING_TAG", f"a frame lacks {keyword}, so nobody knows where it lies")
