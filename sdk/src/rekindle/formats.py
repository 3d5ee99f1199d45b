"""Formats of volumes: by the name of a file to write, by the content of a file to send."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from rekindle.api.common.v1 import common_pb2 as common
from rekindle.errors import InvalidInput

FormatName: TypeAlias = Literal["nifti", "nrrd", "metaimage", "dicom", "dicom-seg"]

#: Endings of the files of a format; the first is the usual one.
SUFFIXES: Final[Mapping[FormatName, tuple[str, ...]]] = {
    "nifti": (".nii.gz", ".nii"),
    "nrrd": (".nrrd",),
    "metaimage": (".mha",),
    "dicom-seg": (".dcm",),
}
#: Endings of image files; folders of DICOM files are images too.
IMAGE_SUFFIXES: Final = (*SUFFIXES["nifti"], *SUFFIXES["nrrd"], *SUFFIXES["metaimage"])
#: Endings of mask files.
MASK_SUFFIXES: Final = (*IMAGE_SUFFIXES, *SUFFIXES["dicom-seg"])

_VALUES: Final[Mapping[FormatName, common.FileFormat.ValueType]] = {
    "nifti": common.FILE_FORMAT_NIFTI,
    "nrrd": common.FILE_FORMAT_NRRD,
    "metaimage": common.FILE_FORMAT_METAIMAGE,
    "dicom": common.FILE_FORMAT_DICOM,
    "dicom-seg": common.FILE_FORMAT_DICOM_SEG,
}


def format_value(name: str) -> common.FileFormat.ValueType:
    """The API's number of a format. Raises InvalidInput for another name."""
    if name not in _VALUES:
        raise InvalidInput(f"{name!r} is no format; use one of {', '.join(get_args(FormatName))}")
    return _VALUES[name]


def format_name(value: int) -> FormatName:
    """The name of the API's word; what it does not say is NIfTI."""
    for name, known in _VALUES.items():
        if known == value:
            return name
    return "nifti"


def format_to_write(path: Path) -> FormatName | None:
    """The format that a file's name asks for; None where the name says nothing."""
    for name, endings in SUFFIXES.items():
        if path.name.lower().endswith(endings):
            return name
    return None


def format_of(data: bytes, *, is_mask: bool) -> FormatName:
    """What the bytes of a file look like; NIfTI where they look like nothing: the service says what is wrong."""
    if data.startswith(b"NRRD"):
        return "nrrd"
    if data.startswith((b"ObjectType", b"NDims", b"Comment")):
        return "metaimage"
    if data[257:262] == b"ustar":
        return "dicom"
    if data[128:132] == b"DICM":
        return "dicom-seg" if is_mask else "dicom"
    return "nifti"
