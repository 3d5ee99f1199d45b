"""Volumes over the wire: files in chunks with a SHA-256, from paths, bytes or SimpleITK images."""

from __future__ import annotations

import gzip
import hashlib
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from rekindle._call import Progress, content_request_id
from rekindle._services import Services
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.config import modality_value
from rekindle.dicom import archive_of
from rekindle.errors import IntegrityError, InvalidInput
from rekindle.formats import SUFFIXES, FormatName, format_of, format_to_write, format_value
from rekindle.uploads import by_way, upload_in_pieces

if TYPE_CHECKING:
    import numpy as np
    import SimpleITK as sitk

CHUNK_BYTES = 1024 * 1024
DOWNLOAD_TIMEOUT_S = 3600.0
GZIP = b"\x1f\x8b"

#: A file (NIfTI, NRRD, MetaImage, DICOM) by path or as bytes, a folder with the DICOM files of a series, or (extra
#: `imaging`) a SimpleITK image.
Source: TypeAlias = "str | Path | bytes | sitk.Image"


@dataclass(frozen=True)
class VolumeFile:
    """A downloaded volume: the file's bytes and views on them."""

    data: bytes
    volume_id: str
    format: FormatName = "nifti"
    #: Fetches the same volume in another format; None where it is not stored.
    fetch: Callable[[FormatName], VolumeFile] | None = field(default=None, repr=False, compare=False)

    def save(self, path: str | Path) -> Path:
        """Writes the file in the format that the name ends in: .nii.gz, .nii, .nrrd, .mha, or .dcm (masks: DICOM SEG).

        Another format than the one at hand is fetched from the service. Raises InvalidInput where it has none.
        """
        path = Path(path)
        data = self.as_format(format_to_write(path) or self.format).data
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(gzip.decompress(data) if path.name.endswith(".nii") and data[:2] == GZIP else data)
        return path

    def as_format(self, format: FormatName) -> VolumeFile:
        """The volume in a format. Raises InvalidInput where it cannot be had in it."""
        if format == self.format:
            return self
        if self.fetch is None:
            raise InvalidInput(f"this volume came as {self.format} and is not stored: ask for {format} to begin with")
        return self.fetch(format)

    def image(self) -> sitk.Image:
        """The volume as a SimpleITK image. Needs the extra `imaging`."""
        import SimpleITK as sitk

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"volume{SUFFIXES[self.format][0]}"
            path.write_bytes(self.data)
            return sitk.ReadImage(str(path))

    def array(self) -> np.ndarray[Any, Any]:
        """The voxels in (slices, rows, columns) order. Needs the extra `imaging`."""
        import SimpleITK as sitk

        return sitk.GetArrayFromImage(self.image())


@dataclass(frozen=True)
class Payload:
    """What is sent for a volume."""

    data: bytes
    format: FormatName

    @property
    def format_value(self) -> common.FileFormat.ValueType:
        """The API's word for the format."""
        return format_value(self.format)


def payload(source: Source, *, is_mask: bool = False) -> Payload:
    """The bytes to send for `source` and their format, which is told by their content.

    A folder becomes an archive of its DICOM files, a SimpleITK image a NIfTI file. Raises InvalidInput.
    """
    if isinstance(source, str | Path):
        path = Path(source)
        if path.is_dir() and not is_mask:
            return Payload(archive_of(path), "dicom")
        if not path.is_file():
            what = "a mask" if is_mask else "an image"
            raise InvalidInput(f"{path.name} is not a file; give {what} as NIfTI, NRRD, MetaImage or DICOM")
        source = path.read_bytes()
    if isinstance(source, bytes):
        return Payload(source, format_of(source, is_mask=is_mask))
    return Payload(_nifti_bytes(source), "nifti")


def with_geometry(voxels: np.ndarray[Any, Any], like: sitk.Image) -> sitk.Image:
    """An image of `voxels` (slices, rows, columns) on the grid of `like`. Needs the extra `imaging`."""
    import SimpleITK as sitk

    image = sitk.GetImageFromArray(voxels)
    image.CopyInformation(like)
    return image


def image_header(project_id: str, image: Payload, modality: str) -> volumes.UploadVolumeHeader:
    """What is sent before an image's bytes; `upload` adds the digest and the request id."""
    return volumes.UploadVolumeHeader(
        project_id=project_id,
        kind=common.VOLUME_KIND_IMAGE,
        format=image.format_value,
        modality=modality_value(modality),  # type: ignore[arg-type]
    )


def upload_image(
    services: Services, project_id: str, image: Source, modality: str, progress: Progress | None = None
) -> str:
    """Sends an image; answers its volume id."""
    sent = payload(image)
    return upload(services, image_header(project_id, sent, modality), sent.data, progress).volume.volume_id


def upload_mask(
    services: Services,
    project_id: str,
    mask: Source,
    image_volume_id: str,
    organs: Iterable[common.Organ],
    progress: Progress | None = None,
) -> volumes.Receipt:
    """Sends a mask on the grid of an image; answers its receipt."""
    sent = payload(mask, is_mask=True)
    header = volumes.UploadVolumeHeader(
        project_id=project_id,
        kind=common.VOLUME_KIND_MASK,
        format=sent.format_value,
        image_volume_id=image_volume_id,
        organs=organs,
    )
    return upload(services, header, sent.data, progress).receipt


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

    def stream() -> volumes.UploadVolumeResponse:
        parts = upload_parts(header, data, progress)
        return services.volumes.UploadVolume(parts, timeout=caller.transfer_timeout_s(len(data)))

    def pieces() -> volumes.UploadVolumeResponse:
        answer = upload_in_pieces(services, header, data, progress)
        receipt = answer.receipt if answer.HasField("receipt") else None
        return volumes.UploadVolumeResponse(volume=answer.volume, receipt=receipt)

    return by_way(caller, len(data), stream, pieces)


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


def download(
    services: Services,
    project_id: str,
    volume_id: str,
    progress: Progress | None = None,
    *,
    format: FormatName = "nifti",
) -> VolumeFile:
    """Fetches one volume as a file, from the start again when the service goes away meanwhile."""
    request = volumes.DownloadVolumeRequest(project_id=project_id, volume_id=volume_id, format=format_value(format))
    caller = services.caller

    def fetch(other: FormatName) -> VolumeFile:
        return download(services, project_id, volume_id, format=other)

    def attempt() -> VolumeFile:
        # The size is told by the answer only; an hour bounds a call that hangs.
        parts = services.volumes.DownloadVolume(request, timeout=DOWNLOAD_TIMEOUT_S)
        return replace(collect_download(parts, progress), format=format, fetch=fetch)

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
