"""DICOM studies: several series in one archive, each of which becomes a volume or says why not."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from rekindle._call import Progress, content_request_id
from rekindle._services import Services
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.uploads import by_way, upload_in_pieces
from rekindle.volume_records import Series
from rekindle.volumes import CHUNK_BYTES


def send_study(services: Services, project_id: str, data: bytes, progress: Progress | None = None) -> list[Series]:
    """Sends an archive; sending the same again is the same study, answered without a copy."""
    header = volumes.UploadStudyHeader(project_id=project_id, sha256=hashlib.sha256(data).hexdigest())
    header.request_id = content_request_id(header)
    caller = services.caller

    def stream() -> list[volumes.SeriesOutcome]:
        parts = _parts(header, data, progress)
        return list(services.volumes.UploadStudy(parts, timeout=2 * caller.transfer_timeout_s(len(data))).series)

    def pieces() -> list[volumes.SeriesOutcome]:
        said = volumes.UploadVolumeHeader(
            request_id=header.request_id, project_id=header.project_id, sha256=header.sha256
        )
        return list(upload_in_pieces(services, said, data, progress, study=True).series)

    return [Series.from_proto(outcome) for outcome in by_way(caller, len(data), stream, pieces)]


def _parts(
    header: volumes.UploadStudyHeader, data: bytes, progress: Progress | None
) -> Iterator[volumes.UploadStudyRequest]:
    yield volumes.UploadStudyRequest(header=header)
    for start in range(0, len(data), CHUNK_BYTES):
        chunk = data[start : start + CHUNK_BYTES]
        yield volumes.UploadStudyRequest(chunk=chunk)
        if progress:
            progress(start + len(chunk), len(data))
