"""Volumes over the wire: files in chunks with a SHA-256, from paths, bytes or SimpleITK images."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rekindle._call import content_request_id
from rekindle._services import Services
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.errors import IntegrityError, InvalidInput
from rekindle.uploads import upload_by_way

if TYPE_CHECKING:
    import numpy as np
    import SimpleITK as sitk

CHUNK_BYTES = 1024 * 1024
DOWNLOAD_TIMEOUT_S = 3600.0

#: A NIfTI file by path or as bytes, or (extra `imaging`) a SimpleITK image.
Source: TypeAlias = "str | Path | bytes | sitk.Image"
#: Called with (bytes done, bytes in all).
Progress: TypeAlias = Callable[[int, int], None]


@dataclass(frozen=True)
class VolumeFile:
    """A downloaded volume: the NIfTI file's bytes and views on them."""

    data: bytes
    volume_id: str

    def save(self, path: str | Path) -> Path:
        """Writes the file; the name should end in .nii.gz."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.data)
        return path

    def image(self) -> sitk.Image:
        """The volume as a SimpleITK image. Needs the extra `imaging`."""
        import SimpleITK as sitk

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "volume.nii.gz"
            path.write_bytes(self.data)
            return sitk.ReadImage(str(path))

    def array(self) -> np.ndarray[Any, Any]:
        """The voxels in (slices, rows, columns) order. Needs the extra `imaging`."""
        import SimpleITK as sitk

        return sitk.GetArrayFromImage(self.image())


def file_bytes(source: Source) -> bytes:
    """The bytes to send for `source`; a SimpleITK image is written as NIfTI first."""
    if isinstance(source, bytes):
        return source
    if isinstance(source, str | Path):
        path = Path(source)
        if not path.is_file():
            raise InvalidInput(f"{path.name} is not a file; give a NIfTI file (.nii or .nii.gz)")
        return path.read_bytes()
    return _nifti_bytes(source)


def with_geometry(voxels: np.ndarray[Any, Any], like: sitk.Image) -> sitk.Image:
    """An image of `voxels` (slices, rows, columns) on the grid of `like`. Needs the extra `imaging`."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(voxels)
    image.CopyInformation(like)
    return image


def upload(
    services: Services,
    header: volumes.UploadVolumeHeader,
    data: bytes,
    progress: Progress | None = None,
    *,
    occasion: str = "",
) -> volumes.UploadVolumeResponse:
    """Sends one file, the way that the client was told to.

    Sending it again on the same occasion is the same upload, answered without a copy.
    """
    header.sha256 = hashlib.sha256(data).hexdigest()
    header.request_id = occasion
    header.request_id = content_request_id(header)
    caller = services.caller
    return upload_by_way(
        services,
        header,
        data,
        progress,
        stream=lambda: services.volumes.UploadVolume(
            upload_parts(header, data, progress), timeout=caller.transfer_timeout_s(len(data))
        ),
    )


def upload_parts(
    header: volumes.UploadVolumeHeader, data: bytes, progress: Progress | None = None
) -> Iterator[volumes.UploadVolumeRequest]:
    """The messages of one upload: the header, then the chunks."""
    yield volumes.UploadVolumeRequest(header=header)
    for start in range(0, len(data), CHUNK_BYTES):
        chunk = data[start : start + CHUNK_BYTES]
        yield volumes.UploadVolumeRequest(chunk=chunk)
        if progress:
            progress(start + len(chunk), len(data))


def download(services: Services, project_id: str, volume_id: str, progress: Progress | None = None) -> VolumeFile:
    """Fetches one volume as a NIfTI file, from the start again when the service goes away meanwhile."""
    request = volumes.DownloadVolumeRequest(project_id=project_id, volume_id=volume_id)
    caller = services.caller

    def attempt() -> VolumeFile:
        # The size is told by the answer only; an hour bounds a call that hangs.
        parts = caller.stream(services.volumes.DownloadVolume, request, timeout_s=DOWNLOAD_TIMEOUT_S)
        return collect_download(parts, progress)

    return caller.repeat(attempt)


def collect_download(parts: Iterator[volumes.DownloadVolumeResponse], progress: Progress | None = None) -> VolumeFile:
    """Puts a download together and checks its digest. Raises IntegrityError where it does not match."""
    header: volumes.DownloadHeader | None = None
    received = bytearray()
    for part in parts:
        if part.WhichOneof("part") == "header":
            header = part.header
        else:
            received += part.chunk
            if progress and header:
                progress(len(received), header.size_bytes)
    if header is None:
        raise IntegrityError("the download ended before it began; try again")
    data = bytes(received)
    if hashlib.sha256(data).hexdigest() != header.sha256:
        raise IntegrityError(f"volume {header.volume.volume_id} arrived damaged; download it again")
    return VolumeFile(data, header.volume.volume_id)


def _nifti_bytes(image: sitk.Image) -> bytes:
    import SimpleITK as sitk

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "volume.nii.gz"
        sitk.WriteImage(image, str(path), useCompression=True, compressionLevel=1)
        return path.read_bytes()
