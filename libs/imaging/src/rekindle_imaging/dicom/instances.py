"""One DICOM file: what is needed of its header, checked before anything relies on it."""

import io
import math
import re
import warnings
import zlib
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from pydicom import Dataset, dcmread
from pydicom.config import disable_value_validation
from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian

from rekindle_imaging.dicom.archive import Member
from rekindle_imaging.errors import VolumeError

CT: Final = "1.2.840.10008.5.1.4.1.1.2"
MR: Final = "1.2.840.10008.5.1.4.1.1.4"
ENHANCED: Final = {
    "1.2.840.10008.5.1.4.1.1.2.1": "CT",
    "1.2.840.10008.5.1.4.1.1.2.2": "CT",
    "1.2.840.10008.5.1.4.1.1.4.1": "MR",
    "1.2.840.10008.5.1.4.1.1.4.4": "MR",
}
IMAGES: Final = {CT: "CT", MR: "MR", **ENHANCED}

_UID: Final = re.compile(r"[0-9.]{1,64}")
_CODE: Final = re.compile(r"[A-Z0-9_ ]{1,16}")
#: Value representations of elements in the file meta information.
_META_VRS: Final = {"UL", "OB", "UI", "SH", "AE", "UR"}
_PROGRAMS: Final = (b"MZ", b"\x7fELF", b"#!", b"\xca\xfe\xba\xbe", b"\xcf\xfa\xed\xfe", b"\xfe\xed\xfa")
#: Largest size of one inflated file, in bytes.
_MAX_INFLATED_BYTES: Final = 256 * 1024**2


@dataclass(frozen=True, slots=True, kw_only=True)
class Instance:
    """What a file says of itself. UIDs are "" where the file does not say them."""

    member: Member
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str
    frame_of_reference_uid: str
    accession_number: str
    #: Modality as the file states it, or "OT".
    modality: str
    is_localizer: bool
    has_pixels: bool

    @property
    def is_image(self) -> bool:
        """Whether it can be part of a volume: a CT or MR image that is no localizer."""
        return self.sop_class_uid in IMAGES and self.has_pixels and not self.is_localizer


def look_at(data: memoryview, member: Member, number: int) -> Instance:
    """What the `number`-th file says of itself, by its header alone.

    Raises VolumeError: NOT_DICOM, EXECUTABLE_PREAMBLE, BAD_UID, TOO_LARGE.
    """
    raw = data[member.offset : member.offset + member.size]
    dataset = read_header(raw, number)
    meta = dataset.file_meta
    sop_class = _uid(dataset, "SOPClassUID", number) or _uid(meta, "MediaStorageSOPClassUID", number)
    image_type = _texts(dataset, "ImageType")
    modality = _text(dataset, "Modality").upper()
    return Instance(
        member=member,
        sop_class_uid=sop_class,
        sop_instance_uid=_uid(dataset, "SOPInstanceUID", number) or _uid(meta, "MediaStorageSOPInstanceUID", number),
        series_instance_uid=_uid(dataset, "SeriesInstanceUID", number),
        study_instance_uid=_uid(dataset, "StudyInstanceUID", number),
        frame_of_reference_uid=_uid(dataset, "FrameOfReferenceUID", number),
        accession_number=_text(dataset, "AccessionNumber")[:64],
        modality=modality if _CODE.fullmatch(modality) else "OT",
        is_localizer="LOCALIZER" in (word.upper() for word in image_type[2:3]),
        has_pixels=isinstance(value_of(dataset, "Rows"), int) and isinstance(value_of(dataset, "Columns"), int),
    )


def read_header(raw: memoryview, number: int) -> Dataset:
    """The data set before the pixels. Raises VolumeError: NOT_DICOM, EXECUTABLE_PREAMBLE, TOO_LARGE."""
    return _read(raw, number, stop_before_pixels=True)


def read_whole(raw: memoryview, number: int) -> Dataset:
    """The data set with its pixels. Raises VolumeError as `read_header` does."""
    return _read(raw, number, stop_before_pixels=False)


def value_of(dataset: Dataset, keyword: str) -> Any:
    """The value of an element, None where it is missing, empty or cannot be read."""
    try:
        value = dataset.get(keyword)
    except Exception:  # a damaged value can make the parser raise anything: there is no value
        return None
    return None if value in ("", b"") else value


def numbers_of(dataset: Dataset, keyword: str, count: int) -> tuple[float, ...] | None:
    """`count` finite numbers; None where the element is missing. Raises VolumeError("BAD_GEOMETRY")."""
    value = value_of(dataset, keyword)
    if value is None:
        return None
    items: Sequence[Any] = [value] if count == 1 else value
    try:
        numbers = tuple(float(item) for item in items)
    except (TypeError, ValueError, OverflowError):
        numbers = ()
    if len(numbers) != count or not all(math.isfinite(x) for x in numbers):
        raise VolumeError("BAD_GEOMETRY", f"{keyword} must be {count} finite numbers")
    return numbers


def syntax_of(dataset: Dataset) -> UID:
    """The transfer syntax; "" where the file does not say it."""
    return UID(str(value_of(dataset.file_meta, "TransferSyntaxUID") or ""))


@contextmanager
def guarded(number: int) -> Generator[None]:
    """Turn every error of the parser on the `number`-th file into VolumeError("NOT_DICOM")."""
    try:
        # What the parser warns of may quote the headers, and they hold patients' data.
        with disable_value_validation(), warnings.catch_warnings(action="ignore"):
            yield
    except (VolumeError, MemoryError):
        raise
    except Exception as error:
        raise VolumeError("NOT_DICOM", f"file {number} is damaged or no DICOM file; export it again") from error


def _read(raw: memoryview, number: int, *, stop_before_pixels: bool) -> Dataset:
    _check_start(raw, number)
    with guarded(number):
        _check_inflated(raw)
        dataset = dcmread(io.BytesIO(raw), stop_before_pixels=stop_before_pixels)
        if not {item.VR for _, item in dataset.file_meta.items()} <= _META_VRS:
            raise ValueError("a kind of value that the meta information cannot have")
        return dataset


def _check_start(raw: memoryview, number: int) -> None:
    start = bytes(raw[:132])
    if start[128:] != b"DICM":
        raise VolumeError("NOT_DICOM", f"file {number} is no DICOM file (Part 10); send DICOM files only")
    if start.startswith(_PROGRAMS):
        raise VolumeError("EXECUTABLE_PREAMBLE", f"file {number} begins like a program; clear its first 128 bytes")


def _check_inflated(raw: memoryview) -> None:
    """A deflated data set must not become larger than any image is; the parser would inflate it whole."""
    file = io.BytesIO(raw)
    file.seek(132)
    meta = read_dataset(file, is_implicit_VR=False, is_little_endian=True, stop_when=_is_past_meta)
    if str(meta.get("TransferSyntaxUID")) != DeflatedExplicitVRLittleEndian:
        return
    inflater, total = zlib.decompressobj(-zlib.MAX_WBITS), 0
    piece = inflater.decompress(raw[file.tell() :], 1 << 20)
    while piece:
        total += len(piece)
        if total > _MAX_INFLATED_BYTES:
            raise VolumeError("TOO_LARGE", "a deflated file becomes larger than any image is")
        piece = inflater.decompress(inflater.unconsumed_tail, 1 << 20)


def _is_past_meta(tag: BaseTag, _vr: str | None, _length: int) -> bool:
    return tag.group != 2


def _uid(dataset: Dataset, keyword: str, number: int) -> str:
    text = _text(dataset, keyword).rstrip("\0 ")
    if text and _UID.fullmatch(text) is None:
        raise VolumeError("BAD_UID", f"file {number} has a {keyword} that is no UID (digits and points, at most 64)")
    return text


def _text(dataset: Dataset, keyword: str) -> str:
    value = value_of(dataset, keyword)
    return value.strip() if isinstance(value, str) else ""


def _texts(dataset: Dataset, keyword: str) -> list[str]:
    value = value_of(dataset, keyword)
    if isinstance(value, str):
        return [value]
    try:
        return [str(item) for item in value or ()]
    except TypeError:
        return []
