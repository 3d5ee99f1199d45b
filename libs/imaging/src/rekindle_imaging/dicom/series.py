"""DICOM series: files in any order, in one archive; out comes a volume, or what keeps them from being one."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import UID

from rekindle_imaging.dicom.archive import Member, is_tar, members
from rekindle_imaging.dicom.instances import IMAGES, Instance, guarded, look_at, read_header, read_whole
from rekindle_imaging.dicom.pixels import stored_pixels
from rekindle_imaging.dicom.planes import Plane, planes_of
from rekindle_imaging.dicom.stacks import arrange
from rekindle_imaging.errors import VolumeError
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume

#: Fractional values that span less than this lose too much when they are rounded.
_MIN_FRACTIONAL_SPAN: Final = 16
_LARGEST: Final = 32767


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """Where a series came from; "" where the files do not say it."""

    study_instance_uid: str
    series_instance_uid: str
    frame_of_reference_uid: str
    #: Instances in the order of the slices.
    sop_instance_uids: tuple[str, ...]
    accession_number: str


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class SeriesVolume:
    """A series as a volume of int16."""

    volume: Volume
    modality: Literal["CT", "MR"]
    reference: Reference


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Stack:
    """A series in the order of its slices, its pixels not yet read."""

    instances: list[Instance]
    #: Planes in the order of the axis k; `instance` is an index into `instances`.
    planes: list[Plane]
    geometry: Geometry


def files_in(data: memoryview) -> list[Member]:
    """The files of a tar archive, or the one DICOM file that the bytes are. Raises VolumeError."""
    found = members(data) if is_tar(data) else [Member(0, len(data))]
    if not found:
        raise VolumeError("NOT_DICOM", "the archive holds no files; send the DICOM files of a series")
    return found


def look_through(data: memoryview, files: Sequence[Member]) -> list[Instance]:
    """What every file says of itself; raises VolumeError for the first that is no DICOM file."""
    return [look_at(data, member, number) for number, member in enumerate(files, start=1)]


def single_series(instances: Sequence[Instance]) -> list[Instance]:
    """The instances, if all belong to one series of images. Raises VolumeError: SEVERAL_SERIES, NOT_AN_IMAGE."""
    series = {(instance.study_instance_uid, instance.series_instance_uid) for instance in instances}
    if len(series) > 1:
        raise VolumeError(
            "SEVERAL_SERIES", f"the files are of {len(series)} series; send one series, or all of them with UploadStudy"
        )
    check_images(instances)
    return list(instances)


def check_images(instances: Sequence[Instance]) -> None:
    """Raises VolumeError("NOT_AN_IMAGE") unless all are CT, or all MR images of one kind."""
    for instance in instances:
        if instance.is_localizer:
            raise VolumeError("NOT_AN_IMAGE", "the series holds localizer images; leave them out")
        if not instance.is_image:
            raise VolumeError("NOT_AN_IMAGE", f"the series holds {_kind(instance)}; only CT and MR images are taken")
    if len({IMAGES[instance.sop_class_uid] for instance in instances}) > 1:
        raise VolumeError("NOT_AN_IMAGE", "the series mixes CT and MR images; send one of them")


def read_series(data: memoryview, instances: Sequence[Instance], *, max_voxels: int) -> SeriesVolume:
    """The volume of one series: stored values times slope plus intercept (CT: HU), rounded to int16, LPS.

    Raises VolumeError: what `check_images`, `stack_of` and the pixels raise, and OUT_OF_RANGE.
    """
    check_images(instances)
    stack = stack_of(data, instances, max_voxels=max_voxels)
    voxels = _voxels(data, stack)
    return SeriesVolume(
        volume=Volume(voxels, stack.geometry),
        modality=cast("Literal['CT', 'MR']", IMAGES[stack.instances[0].sop_class_uid]),
        reference=_reference(stack),
    )


def stack_of(data: memoryview, instances: Sequence[Instance], *, max_voxels: int) -> Stack:
    """The slices in order. A file that is there twice, byte by byte, is taken once.

    Raises VolumeError: DUPLICATE_SLICES and what `planes_of` and `arrange` raise.
    """
    unique = _without_repeats(data, instances)
    planes: list[Plane] = []
    for index, instance in enumerate(unique):
        header = read_header(_bytes(data, instance.member), index + 1)
        kind = instance.sop_class_uid
        with guarded(index + 1):
            planes += planes_of(header, index, sop_class=kind, modality=IMAGES[kind], max_voxels=max_voxels)
    ordered, geometry = arrange(planes, max_voxels)
    return Stack(instances=unique, planes=ordered, geometry=geometry)


def _without_repeats(data: memoryview, instances: Sequence[Instance]) -> list[Instance]:
    unique: dict[str, Instance] = {}
    for instance in instances:
        key = instance.sop_instance_uid or hashlib.sha256(_bytes(data, instance.member)).hexdigest()
        known = unique.setdefault(key, instance)
        if known is not instance and bytes(_bytes(data, known.member)) != bytes(_bytes(data, instance.member)):
            raise VolumeError(
                "DUPLICATE_SLICES", "two different files have the same SOP Instance UID; send the one that is right"
            )
    return list(unique.values())


def _voxels(data: memoryview, stack: Stack) -> NDArray[np.int16]:
    voxels = np.empty(stack.geometry.shape, dtype=np.int16)
    frames_of = np.bincount([plane.instance for plane in stack.planes], minlength=len(stack.instances))
    span, dataset, shown = _Span(), Dataset(), -1
    for k, plane in enumerate(stack.planes):
        if plane.instance != shown:
            member = stack.instances[plane.instance].member
            dataset, shown = read_whole(_bytes(data, member), plane.instance + 1), plane.instance
        with guarded(plane.instance + 1):
            stored = stored_pixels(dataset, plane.frame, int(frames_of[plane.instance]))
        voxels[k] = _rescaled(stored, plane, span)
    if span.has_fractions and span.high > span.low and span.high - span.low < _MIN_FRACTIONAL_SPAN:
        raise VolumeError(
            "OUT_OF_RANGE", "the fractional values span less than 16, whole numbers cannot hold them; rescale"
        )
    return voxels


class _Span:
    """Lowest and highest value so far, and whether any had a fraction."""

    low, high, has_fractions = np.inf, -np.inf, False


def _rescaled(stored: NDArray[np.integer[Any]], plane: Plane, span: _Span) -> NDArray[np.int16]:
    slope, intercept = plane.slope, plane.intercept
    is_whole = slope.is_integer() and intercept.is_integer()
    # The extremes decide first: by Python's numbers, which cannot overflow.
    ends = sorted(int(end) * slope + intercept for end in (stored.min(), stored.max()))
    low, high = (float(round(end)) for end in ends)
    if not (low >= -_LARGEST - 1 and high <= _LARGEST):
        raise VolumeError("OUT_OF_RANGE", "the image has values outside -32768 to 32767; rescale it")
    span.low, span.high = min(span.low, low), max(span.high, high)
    if is_whole and max(abs(slope), abs(intercept)) <= 2**31 - 1:
        return (stored.astype(np.int64) * int(slope) + int(intercept)).astype(np.int16)
    values = stored.astype(np.float64) * slope + intercept
    rounded = np.rint(values)
    span.has_fractions = span.has_fractions or not np.array_equal(rounded, values)
    return rounded.astype(np.int16)


def _reference(stack: Stack) -> Reference:
    first = stack.instances[0]
    listed: dict[str, None] = {}
    for plane in stack.planes:
        uid = stack.instances[plane.instance].sop_instance_uid
        if uid:
            listed[uid] = None
    return Reference(
        study_instance_uid=first.study_instance_uid,
        series_instance_uid=first.series_instance_uid,
        frame_of_reference_uid=_common(stack, "frame_of_reference_uid"),
        sop_instance_uids=tuple(listed),
        accession_number=_common(stack, "accession_number"),
    )


def _common(stack: Stack, name: str) -> str:
    """What all instances say, or "" where they differ."""
    values = {getattr(instance, name) for instance in stack.instances}
    return values.pop() if len(values) == 1 else ""


def _kind(instance: Instance) -> str:
    """What kind of object it is, by the standard's name; nothing of what is unknown is repeated."""
    uid = UID(instance.sop_class_uid)
    return uid.name if uid and uid.name != str(uid) else "objects of an unknown kind"


def _bytes(data: memoryview, member: Member) -> memoryview:
    return data[member.offset : member.offset + member.size]
