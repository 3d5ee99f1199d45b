"""Reader of foreign files in the sandbox. What a child reports is checked like anything from outside."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Final

from rekindle.errors import InvalidInput
from rekindle.vocabulary import FileFormat, Modality, Organ, SourceReference, VolumeKind
from rekindle_imaging import canonical
from rekindle_imaging.dicom.seg_reader import SegmentClass
from rekindle_imaging.errors import VolumeError
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.adapters import sandbox_child
from rekindle_inference.adapters.sandbox import Report, Sandbox, is_reason, left_behind, unreadable, words
from rekindle_inference.adapters.sandbox_child import CANONICAL_FILE, Limits, MaskGrid
from rekindle_inference.domain.records import Failure, VolumeRecord
from rekindle_inference.ports import FoundSeries, MaskTarget, Parsed

_UID: Final = re.compile(r"[0-9.]{0,64}")
_MODALITY: Final = re.compile(r"[A-Z0-9_ ]{0,16}")
_UIDS: Final = ("study_instance_uid", "series_instance_uid", "frame_of_reference_uid")
_KINDS: Final = {FileFormat.DICOM: VolumeKind.IMAGE, FileFormat.DICOM_SEG: VolumeKind.MASK}


class SandboxReader:
    """Reads each file in a fresh child. `folder` holds what they write, until it has been taken over."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._sandbox = Sandbox(folder, limits)
        self._limits = limits

    def read(
        self,
        path: Path,
        kind: VolumeKind,
        format: FileFormat,
        cancellation: Cancellation,
        *,
        onto: MaskTarget | None = None,
    ) -> Parsed:
        """What the file holds. InvalidInput with the reader's reason; TOO_LARGE or UNREADABLE where it died."""
        if _KINDS.get(format, kind) is not kind:
            raise InvalidInput(
                f"{format} holds {_KINDS[format]}s only: send a {kind} as NIfTI, NRRD or MetaImage",
                reason="WRONG_FORMAT",
            )
        if format is FileFormat.DICOM_SEG:
            if onto is None:
                raise InvalidInput("a DICOM SEG needs the image that it lies on", reason="WRONG_FORMAT")
            task, arguments = sandbox_child.parse_segmentation, (str(path), _grid(onto.image, onto.organs))
        else:
            task, arguments = sandbox_child.parse, (str(path), kind.value, format.value)
        archive = path if format is FileFormat.DICOM else None
        with self._sandbox.run(task, arguments, cancellation, archive=archive) as (folder, report):
            return self._parsed(folder, report, kind)

    def take_apart(self, path: Path, cancellation: Cancellation) -> list[FoundSeries]:
        """The series of a DICOM archive; InvalidInput for the archive itself."""
        with self._sandbox.run(sandbox_child.list_series, (str(path),), cancellation, archive=path) as (_, report):
            size = path.stat().st_size
            try:
                return [_found(item, size) for item in report["series"]]
            except (KeyError, TypeError, ValueError):
                raise unreadable() from None

    def read_series(self, path: Path, series: FoundSeries, cancellation: Cancellation) -> Parsed:
        """Like `read`, of one series of a DICOM archive."""
        arguments = (str(path), series.files)
        task = sandbox_child.parse_series
        with self._sandbox.run(task, arguments, cancellation, archive=path) as (folder, report):
            return self._parsed(folder, report, VolumeKind.IMAGE)

    def _parsed(self, folder: Path, report: Report, kind: VolumeKind) -> Parsed:
        try:
            data = left_behind(folder / CANONICAL_FILE, self._limits.output_bytes)
            header = canonical.read_header(data)
            if header["kind"] != kind.value or canonical.digest(data) != report.get("digest"):
                raise unreadable()
            canonical.decode(data, max_voxels=self._limits.max_voxels)
            modality = report.get("modality")
            return Parsed(
                data=data,
                modality=None if modality is None else Modality(modality),
                source=_source(report.get("source")),
            )
        except (OSError, VolumeError, TypeError, ValueError, KeyError):
            raise unreadable() from None


def _grid(image: VolumeRecord, organs: tuple[Organ, ...]) -> MaskGrid:
    return MaskGrid(
        geometry=image.geometry,
        sop_instance_uids=image.source.sop_instance_uids,
        organs=tuple(
            SegmentClass(
                organ_id=organ.id,
                label_value=organ.label_value,
                code=None if organ.code is None else (organ.code.scheme, organ.code.value),
            )
            for organ in organs
        ),
    )


def _source(reported: Any) -> SourceReference:
    if reported is None:
        return SourceReference()
    uids = {name: _checked(_UID, reported[name]) for name in _UIDS}
    instances = tuple(_checked(_UID, uid) for uid in reported["sop_instance_uids"])
    accession = reported["accession_number"]
    if not isinstance(accession, str) or len(accession) > 64:
        raise ValueError("no accession number")
    return SourceReference(**uids, sop_instance_uids=instances, accession_number=accession)


def _found(item: Any, archive_bytes: int) -> FoundSeries:
    files = tuple((_whole(offset), _whole(size)) for offset, size in item["files"])
    if any(offset + size > archive_bytes for offset, size in files):
        raise ValueError("a file beyond the archive")
    failure = item["failure"]
    if failure is not None and not (is_reason(failure[0]) and isinstance(failure[1], str)):
        raise ValueError("no failure")
    return FoundSeries(
        series_instance_uid=_checked(_UID, item["series_instance_uid"]),
        modality=_checked(_MODALITY, item["modality"]),
        files=files,
        failure=None if failure is None else Failure(reason=failure[0], message=words(failure[1])),
    )


def _checked(pattern: re.Pattern[str], text: Any) -> str:
    if not isinstance(text, str) or pattern.fullmatch(text) is None:
        raise ValueError("not what it should be")
    return text


def _whole(number: Any) -> int:
    if not isinstance(number, int) or number < 0:
        raise ValueError("no number of bytes")
    return number
