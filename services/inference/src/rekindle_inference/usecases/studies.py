"""Studies: an archive of several DICOM series, each of which becomes a volume or says why not."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rekindle.errors import DependencyUnavailable, InvalidInput
from rekindle.vocabulary import FileFormat, VolumeKind
from rekindle_imaging import canonical
from rekindle_servicekit import layout
from rekindle_servicekit.idempotency import RequestKey
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.domain.records import Failure, ProjectId, VolumeRecord
from rekindle_inference.ports import FoundSeries, Parsed
from rekindle_inference.state import UnitOfWork
from rekindle_inference.usecases.checks import check_project, require_volume
from rekindle_inference.usecases.volumes import Upload, Volumes, record_volume

MAX_SERIES = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesOutcome:
    """What became of one series: a volume, or the reason why it is none."""

    series_instance_uid: str
    modality: str
    volume: VolumeRecord | None = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A series that can become a volume; its canonical form is stored already, by its digest."""

    parsed_as: Upload
    header: bytes
    digest: str


def upload_study(
    volumes: Volumes, request: RequestKey, project_id: str, sha256: str, file: Path, cancellation: Cancellation
) -> tuple[SeriesOutcome, ...]:
    """Take in an archive, once per request id. Objects first; one commit then makes all of it visible.

    InvalidInput for the archive itself (NOT_DICOM, UNSAFE_ARCHIVE, TRUNCATED, TOO_LARGE, ...), AlreadyExists.
    """
    project = check_project(project_id)
    with volumes.state.read() as uow:
        answered = _answered(uow, request, project)
    if answered is not None:
        return answered
    found = volumes.reader.take_apart(file, cancellation)
    if len(found) > MAX_SERIES:
        raise InvalidInput(f"the archive holds more than {MAX_SERIES} series: send it in parts", reason="TOO_LARGE")
    taken = [_take(volumes, project, sha256, file, series, cancellation) for series in found]
    cancellation.raise_if_set()
    if any(isinstance(one, _Read) for one in taken):
        volumes.objects.put_file(layout.original(sha256), file)
    with volumes.state.write() as uow:
        answered = _answered(uow, request, project)
        if answered is not None:
            return answered
        outcomes = tuple(_record(uow, one) for one in taken)
        _check_stored(volumes, sha256, taken)
        uow.requests.add(request, _to_text(outcomes).encode())
    for outcome in outcomes:
        if outcome.failure is not None:
            volumes.observer.series_refused(outcome.failure.reason)
    return outcomes


def _check_stored(volumes: Volumes, sha256: str, taken: Sequence[_Read | SeriesOutcome]) -> None:
    """What was stored before this transaction may have been erased since, with another volume of the same bytes."""
    keys = [layout.canonical(one.digest) for one in taken if isinstance(one, _Read)]
    if not all(volumes.objects.exists(key) for key in [*keys, *([layout.original(sha256)] if keys else [])]):
        raise DependencyUnavailable(
            "the same bytes were erased at this moment: send the study again", reason="CONCURRENT_WRITE"
        )


def _take(
    volumes: Volumes, project: ProjectId, sha256: str, file: Path, series: FoundSeries, cancellation: Cancellation
) -> _Read | SeriesOutcome:
    if series.failure is not None:
        return _failed(series, series.failure)
    try:
        parsed = volumes.reader.read_series(file, series, cancellation)
    except InvalidInput as error:
        return _failed(series, Failure(reason=error.reason, message=error.message))
    digest = canonical.digest(parsed.data)
    volumes.objects.put(layout.canonical(digest), parsed.data)
    return _Read(parsed_as=_upload(project, sha256, parsed), header=_header(parsed.data), digest=digest)


def _upload(project: ProjectId, sha256: str, parsed: Parsed) -> Upload:
    return Upload(
        project_id=project,
        kind=VolumeKind.IMAGE,
        format=FileFormat.DICOM,
        sha256=sha256,
        source=parsed.source,
        modality=parsed.modality,
    )


def _header(data: bytes) -> bytes:
    """The beginning of canonical bytes, which holds the geometry: the voxels of a whole study are not kept."""
    return data[: 2 * canonical.MAX_HEADER_BYTES]


def _record(uow: UnitOfWork, taken: _Read | SeriesOutcome) -> SeriesOutcome:
    if isinstance(taken, SeriesOutcome):
        return taken
    return _taken(record_volume(uow, taken.parsed_as, taken.header, taken.digest))


def _failed(series: FoundSeries, failure: Failure) -> SeriesOutcome:
    return SeriesOutcome(series_instance_uid=series.series_instance_uid, modality=series.modality, failure=failure)


def _to_text(outcomes: tuple[SeriesOutcome, ...]) -> str:
    """What a retry is answered with. Of a volume only its id, so that erasing it erases its UIDs here too."""
    return json.dumps([_volume_item(o.volume) if o.volume is not None else _failure_item(o) for o in outcomes])


def _volume_item(volume: VolumeRecord) -> dict[str, Any]:
    return {"volume_id": volume.volume_id}


def _failure_item(outcome: SeriesOutcome) -> dict[str, Any]:
    failure = outcome.failure or Failure(reason="", message="")
    return {
        "series_instance_uid": outcome.series_instance_uid,
        "modality": outcome.modality,
        "failure": [failure.reason, failure.message],
    }


def _answered(uow: UnitOfWork, request: RequestKey, project: ProjectId) -> tuple[SeriesOutcome, ...] | None:
    text = uow.requests.find(request)
    return None if text is None else tuple(_outcome(uow, project, item) for item in json.loads(text))


def _outcome(uow: UnitOfWork, project: ProjectId, item: dict[str, Any]) -> SeriesOutcome:
    if "volume_id" in item:
        return _taken(require_volume(uow, project, item["volume_id"], field="request_id"))
    return SeriesOutcome(
        series_instance_uid=item["series_instance_uid"],
        modality=item["modality"],
        failure=Failure(reason=item["failure"][0], message=item["failure"][1]),
    )


def _taken(volume: VolumeRecord) -> SeriesOutcome:
    return SeriesOutcome(
        series_instance_uid=volume.source.series_instance_uid,
        modality=volume.modality.value if volume.modality else "",
        volume=volume,
    )
