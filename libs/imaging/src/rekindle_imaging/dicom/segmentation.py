"""DICOM SEG out: a mask as a Segmentation object that refers to the instances its image came from."""

import hashlib
import io
import json
import uuid
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray
from pydicom import Dataset

from rekindle_imaging.dicom.codes import SIDES, Code
from rekindle_imaging.dicom.instances import ENHANCED, Instance, guarded, read_header
from rekindle_imaging.dicom.series import Stack, check_images, stack_of
from rekindle_imaging.errors import VolumeError
from rekindle_imaging.volume import Volume

AlgorithmType = Literal["AUTOMATIC", "SEMIAUTOMATIC", "MANUAL"]

_CATEGORY: Final = ("123037004", "SCT", "Anatomical Structure")
_FAMILY: Final = ("123110", "DCM", "Artificial Intelligence")
#: The namespace of the UIDs that are made of content.
_NAMESPACE: Final = uuid.UUID("7a1e6f0c-8f5c-5f0a-9d3b-3f4c1c2a7e21")
#: Attributes that a SEG copies from its sources; the standard allows them to be empty.
_MAY_BE_EMPTY: Final = (
    *("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("AccessionNumber", "StudyID", "ReferringPhysicianName"),
)
_TOLERANCE_MM: Final = 1e-2


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """One organ of a mask."""

    label: str
    label_value: int
    code: Code


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorship:
    """How a mask came about; the algorithm is named unless it was drawn by hand."""

    algorithm_type: AlgorithmType
    algorithm_name: str = ""
    algorithm_version: str = ""
    software_version: str = ""
    created_at: datetime


def segmentation_bytes(
    data: memoryview,
    instances: Sequence[Instance],
    mask: Volume,
    segments: Sequence[Segment],
    authorship: Authorship,
    *,
    max_voxels: int,
) -> bytes:
    """A DICOM SEG (BINARY, explicit little endian) of label values uint8 (k, j, i) on the grid of a series.

    Segments are numbered from 1 in the given order; only slices that show an organ have frames. All UIDs are
    made of the content, so that equal input gives equal bytes.
    Raises VolumeError: MISSING_TAG, MULTIFRAME, GEOMETRY_MISMATCH and what reading the series raises.
    """
    check_images(instances)
    stack = stack_of(data, instances, max_voxels=max_voxels)
    if not mask.geometry.matches(stack.geometry, _TOLERANCE_MM):
        raise VolumeError("GEOMETRY_MISMATCH", "the mask does not lie on the grid of the DICOM series")
    sources, frames = _sources(data, stack)
    numbered = np.zeros(256, dtype=np.uint8)
    numbered[[segment.label_value for segment in segments]] = np.arange(1, len(segments) + 1)
    seed = _digest(data, mask, stack, segments, authorship)
    try:
        with guarded(1):
            return _encode(sources, numbered[mask.voxels][frames], segments, authorship, seed)
    except VolumeError as error:
        raise VolumeError(
            "UNREFERABLE_SOURCE", "the source images' headers cannot be copied into a SEG; ask for another format"
        ) from error


def _encode(
    sources: list[Dataset], labels: NDArray[np.uint8], segments: Sequence[Segment], authorship: Authorship, seed: str
) -> bytes:
    # Only those who write a SEG pay for loading what writes it.
    from highdicom.seg import Segmentation

    made = Segmentation(
        source_images=sources,
        pixel_array=labels,
        segmentation_type="BINARY",
        segment_descriptions=[_description(n, segment, authorship) for n, segment in enumerate(segments, start=1)],
        series_instance_uid=_uid(seed, "series"),
        series_number=9000,
        sop_instance_uid=_uid(seed, "instance"),
        instance_number=1,
        manufacturer="Rekindle",
        manufacturer_model_name="Rekindle",
        software_versions=authorship.software_version or "unknown",
        device_serial_number="1",
        content_label="SEGMENTATION",
        content_description="Organs",
        series_description="Segmentation (draft for review)",
    )
    _make_repeatable(made, authorship.created_at, _uid(seed, "dimensions"))
    written = io.BytesIO()
    made.save_as(written, enforce_file_format=True)
    return written.getvalue()


def _description(number: int, segment: Segment, authorship: Authorship) -> Any:
    from highdicom import AlgorithmIdentificationSequence
    from highdicom.seg import SegmentDescription
    from highdicom.sr import CodedConcept

    algorithm = None
    if authorship.algorithm_type != "MANUAL":
        algorithm = AlgorithmIdentificationSequence(
            name=authorship.algorithm_name,
            family=CodedConcept(*_FAMILY),
            version=authorship.algorithm_version,
        )
    description = SegmentDescription(
        segment_number=number,
        segment_label=segment.label[:64],
        segmented_property_category=CodedConcept(*_CATEGORY),
        segmented_property_type=_concept(segment.code),
        algorithm_type=authorship.algorithm_type,
        algorithm_identification=algorithm,
    )
    if segment.code.side:
        kind = description.SegmentedPropertyTypeCodeSequence[0]
        kind.SegmentedPropertyTypeModifierCodeSequence = [_concept(SIDES[segment.code.side])]
    return description


def _concept(code: Code) -> Any:
    from highdicom.sr import CodedConcept

    return CodedConcept(code.value, code.scheme, code.meaning[:64])


def _sources(data: memoryview, stack: Stack) -> tuple[list[Dataset], list[int]]:
    """Headers of the source instances, and for each of their frames the slice of the mask that belongs to it."""
    if any(instance.sop_class_uid in ENHANCED for instance in stack.instances):
        if len(stack.instances) > 1:
            raise VolumeError("MULTIFRAME", "a SEG can refer to one enhanced image only; ask for NRRD or NIfTI instead")
        slices = {plane.frame: k for k, plane in enumerate(stack.planes)}
        return [_source(data, stack.instances[0])], [slices[frame] for frame in range(len(slices))]
    headers = [_source(data, stack.instances[plane.instance]) for plane in stack.planes]
    return headers, list(range(len(headers)))


def _source(data: memoryview, instance: Instance) -> Dataset:
    member = instance.member
    header = read_header(data[member.offset : member.offset + member.size], 1)
    for keyword in ("study_instance_uid", "series_instance_uid", "frame_of_reference_uid", "sop_instance_uid"):
        if not getattr(instance, keyword):
            words = {"study_instance_uid": "StudyInstanceUID", "series_instance_uid": "SeriesInstanceUID"}
            named = words.get(keyword, "FrameOfReferenceUID" if keyword.startswith("frame") else "SOPInstanceUID")
            raise VolumeError(
                "MISSING_TAG", f"the source images lack {named}, which a SEG must refer to; ask for another format"
            )
    header.SOPClassUID, header.SOPInstanceUID = instance.sop_class_uid, instance.sop_instance_uid
    for keyword in _MAY_BE_EMPTY:
        if keyword not in header:
            setattr(header, keyword, "")
    return header


def _make_repeatable(made: Dataset, moment: datetime, dimensions_uid: str) -> None:
    """Dates are when the mask was made, not when this file was; no UID is drawn by lot."""
    date, time = moment.strftime("%Y%m%d"), moment.strftime("%H%M%S.%f")
    for keyword in ("ContentDate", "SeriesDate", "InstanceCreationDate"):
        setattr(made, keyword, date)
    for keyword in ("ContentTime", "SeriesTime", "InstanceCreationTime"):
        setattr(made, keyword, time)
    for item in made.ContributingEquipmentSequence[-1:]:
        item.ContributionDateTime = date + time
    for item in (*made.DimensionOrganizationSequence, *made.DimensionIndexSequence):
        item.DimensionOrganizationUID = dimensions_uid


def _sha256(data: memoryview, instance: Instance) -> str:
    member = instance.member
    return hashlib.sha256(data[member.offset : member.offset + member.size]).hexdigest()


def _digest(data: memoryview, mask: Volume, stack: Stack, segments: Sequence[Segment], authorship: Authorship) -> str:
    words = {
        "sources": [_sha256(data, instance) for instance in stack.instances],
        "segments": [asdict(segment) for segment in segments],
        "authorship": {**asdict(authorship), "created_at": authorship.created_at.isoformat()},
        "mask": hashlib.sha256(mask.voxels.tobytes()).hexdigest(),
    }
    return hashlib.sha256(json.dumps(words, sort_keys=True).encode()).hexdigest()


def _uid(seed: str, part: str) -> str:
    """A UID under the root for UUIDs (PS3.5 B.2)."""
    return f"2.25.{uuid.uuid5(_NAMESPACE, f'{seed}/{part}').int}"
