"""The phantom as a DICOM series, sent to and fetched from a running inference service."""

from __future__ import annotations

import hashlib
import uuid
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from dicom_phantom import series
from phantom import Phantom
from pydicom import Dataset
from refusals import refused_with
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import volumes_pb2 as messages

PROJECT = "project-a"
INSTANCES = [f"1.2.3.1.1.{n}" for n in range(1, 13)]
CODED = [
    common.Organ(id="liver", label_value=6),
    common.Organ(
        id="spleen", label_value=1, code=common.CodedConcept(scheme="SCT", value="78961009", meaning="Spleen")
    ),
]


def phantom_series(phantom: Phantom, **changes: Any) -> list[Dataset]:
    """The phantom as CT slices of 4 x 4 x 5 mm."""

    def place(dataset: Dataset, number: int) -> None:
        dataset.ImagePositionPatient = [-60.0, -50.0, 100.0 + 5.0 * number]
        dataset.PixelSpacing = [4.0, 4.0]

    return series((phantom.image.astype(np.int32) + 1024).astype(np.uint16), place, **changes)


def put(folder: Path, data: bytes) -> Path:
    path = folder / uuid.uuid4().hex
    path.write_bytes(data)
    return path


def upload(running: Any, folder: Path, data: bytes, **header: Any) -> messages.Volume:
    fields = {"format": common.FILE_FORMAT_DICOM, "modality": common.MODALITY_UNSPECIFIED, "chunk_bytes": 65536}
    return running.upload(put(folder, data), **{**fields, **header}).volume


def upload_mask(running: Any, folder: Path, phantom: Phantom, image: messages.Volume, **header: Any) -> Any:
    path = phantom.file(folder, "mask")
    return running.upload_mask(path, image.volume_id, **{"organs": CODED, **header})


def download(running: Any, volume_id: str, format: Any, **fields: Any) -> bytes:
    request = messages.DownloadVolumeRequest(project_id=PROJECT, volume_id=volume_id, format=format, **fields)
    answers = list(running.volumes.DownloadVolume(request, timeout=60))
    data = b"".join(answer.chunk for answer in answers[1:])
    assert hashlib.sha256(data).hexdigest() == answers[0].header.sha256
    return data


def reason_of(call: Any) -> str:
    code, error = refused_with(call)
    assert grpc.StatusCode.INVALID_ARGUMENT == code
    return error.reason
