"""Slices of a volume: their voxels at several resolutions, and which of them to look at first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rekindle._services import Services
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.convert import from_proto
from rekindle.errors import IntegrityError
from rekindle.volumes import DOWNLOAD_TIMEOUT_S

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, kw_only=True)
class SliceStack:
    """Some slices of a volume as plain voxels."""

    #: C order (slices, rows, columns), little-endian.
    data: bytes
    dtype: Literal["int16", "uint8"]
    #: Slices, rows, columns.
    shape: tuple[int, int, int]
    #: Index of the first slice in the volume, from 0.
    first_slice: int
    #: 0 is the volume's own resolution; each further level halves rows and columns.
    level: int
    #: Millimetres between slices, rows, columns.
    spacing_mm: tuple[float, ...]
    #: Values to show as black and white; None for masks.
    window: tuple[float, float] | None

    def array(self) -> np.ndarray[Any, Any]:
        """The voxels in (slices, rows, columns) order. Needs the extra `imaging`."""
        import numpy as np

        return np.frombuffer(self.data, np.dtype(self.dtype).newbyteorder("<")).reshape(self.shape)


@dataclass(frozen=True, kw_only=True)
class SliceRank:
    """How much of one slice of a coarse label is expected to be wrong."""

    #: Index of the slice, from 0.
    slice: int
    #: Voxels whose label is expected to be corrected.
    expected_voxels_wrong: float
    #: 0 to 1: 1 - the soft Dice confidence of this slice.
    uncertainty: float


def read_slices(
    services: Services, project_id: str, volume_id: str, first_slice: int, slice_count: int, level: int
) -> SliceStack:
    """Fetches slices, from the start again when the service goes away meanwhile."""
    request = volumes.ReadVolumeRequest(
        project_id=project_id, volume_id=volume_id, first_slice=first_slice, slice_count=slice_count, level=level
    )
    caller = services.caller

    def attempt() -> SliceStack:
        header: volumes.ReadVolumeHeader | None = None
        received = bytearray()
        for part in services.volumes.ReadVolume(request, timeout=DOWNLOAD_TIMEOUT_S):
            if part.WhichOneof("part") == "header":
                header = part.header
            else:
                received += part.chunk
        return _stack(header, bytes(received), level)

    return caller.repeat(attempt)


def rank_slices(
    services: Services, project_id: str, mask_volume_id: str, organ: str | None, limit: int
) -> list[SliceRank]:
    """Slices of a coarse label, those with the most expected correction first."""
    request = volumes.RankSlicesRequest(
        project_id=project_id, mask_volume_id=mask_volume_id, organ_id=organ or "", limit=limit
    )
    answer = services.volumes.RankSlices(request)
    return [from_proto(item, SliceRank) for item in answer.slices]


def _stack(header: volumes.ReadVolumeHeader | None, data: bytes, level: int) -> SliceStack:
    if header is None:
        raise IntegrityError("the answer ended before it began; try again")
    is_image = header.voxel_type == volumes.VOXEL_TYPE_INT16
    shape = (header.slices, header.rows, header.columns)
    if len(data) != shape[0] * shape[1] * shape[2] * (2 if is_image else 1):
        raise IntegrityError("the slices arrived incomplete; read them again")
    return SliceStack(
        data=data,
        dtype="int16" if is_image else "uint8",
        shape=shape,
        first_slice=header.first_slice,
        level=level,
        spacing_mm=tuple(reversed(header.geometry.spacing_mm)),
        window=(header.window_low, header.window_high) if header.HasField("window_low") else None,
    )
