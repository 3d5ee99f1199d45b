"""Slices of volumes: their voxels for viewers, and which of them to look at first."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rekindle.errors import NotFound
from rekindle.vocabulary import VolumeKind
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.previews import MAX_LEVEL, reduce_image, reduce_mask, reduced_geometry
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.domain.records import VolumeRecord
from rekindle_inference.domain.slices import ALL_ORGANS, SliceRank, SliceRanks
from rekindle_inference.state import State, UnitOfWork
from rekindle_inference.usecases.checks import check_project, require_volume, wrong_field
from rekindle_inference.usecases.decoded import DecodedVolumes

MAX_RANKS = 1000
#: Voxels that are reduced at a time.
_STEP_VOXELS = 1 << 21


@dataclass(frozen=True, slots=True, kw_only=True)
class Slices:
    """What the use cases of slices work with."""

    state: State
    decoded: DecodedVolumes


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRange:
    """Which slices, and how finely; as the client asks for it."""

    first: int
    #: 0 for all that follow.
    count: int
    level: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SlicesRead:
    """Voxels that are about to be sent."""

    record: VolumeRecord
    #: Of what is sent.
    geometry: Geometry
    first: int
    #: Black and white; None for masks.
    window: tuple[float, float] | None
    #: int16 or uint8 (slices, rows, columns), native resolution.
    voxels: NDArray[np.int16] | NDArray[np.uint8]
    level: int

    def parts(self, cancellation: Cancellation | None = None) -> Iterator[bytes]:
        """The voxels at the level, little-endian, a few slices at a time."""
        reduce = reduce_image if self.record.kind is VolumeKind.IMAGE else reduce_mask
        step = max(1, _STEP_VOXELS // max(1, self.voxels[0].size))
        for first in range(0, len(self.voxels), step):
            if cancellation is not None:
                cancellation.raise_if_set()
            part = reduce(self.voxels[first : first + step], self.level)  # pyright: ignore[reportArgumentType]
            yield np.ascontiguousarray(part, dtype=part.dtype.newbyteorder("<")).tobytes()


def read_slices(slices: Slices, project_id: str, volume_id: str, wanted: SliceRange) -> SlicesRead:
    """Slices of a volume; InvalidInput naming first_slice, slice_count or level; NotFound."""
    with slices.state.read() as uow:
        record = require_volume(uow, check_project(project_id), volume_id, field="volume_id")
    count = _check_range(record.geometry, wanted)
    volume = slices.decoded.get(record.canonical_digest)
    columns, rows, _ = record.geometry.size
    grid = record.geometry.box((0, 0, wanted.first), (columns, rows, count))
    window = None
    if record.kind is VolumeKind.IMAGE:
        window = slices.decoded.window(record.canonical_digest, record.modality)
    return SlicesRead(
        record=record,
        geometry=reduced_geometry(grid, wanted.level),
        first=wanted.first,
        window=window,
        voxels=volume.voxels[wanted.first : wanted.first + count],
        level=wanted.level,
    )


def rank_slices(
    slices: Slices, project_id: str, mask_volume_id: str, organ_id: str, limit: int
) -> tuple[str, tuple[SliceRank, ...]]:
    """The model version of a coarse label, and its slices, those with the most expected correction first.

    NotFound: VOLUME_NOT_FOUND, NO_PREDICTION, ORGAN_NOT_FOUND. InvalidInput: limit.
    """
    if not 0 <= limit <= MAX_RANKS:
        raise wrong_field("limit", f"must be 1 to {MAX_RANKS}, or 0 for all")
    with slices.state.read() as uow:
        ranks = _ranks(uow, project_id, mask_volume_id)
    found = ranks.organs.get(organ_id or ALL_ORGANS)
    if found is None:
        known = ", ".join(sorted(set(ranks.organs) - {ALL_ORGANS}))
        raise NotFound(f"the coarse label has no such organ (organ_id): it has {known}", reason="ORGAN_NOT_FOUND")
    return ranks.model_version_id, found[: limit or None]


def _ranks(uow: UnitOfWork, project_id: str, mask_volume_id: str) -> SliceRanks:
    mask = require_volume(uow, check_project(project_id), mask_volume_id, field="mask_volume_id")
    ranks = uow.predictions.slice_ranks(mask.project_id, mask.volume_id)
    if ranks is None:
        raise NotFound(
            "nothing is known of the slices of this volume: name a coarse label, a mask that was predicted here",
            reason="NO_PREDICTION",
        )
    return ranks


def _check_range(geometry: Geometry, wanted: SliceRange) -> int:
    """How many slices that is."""
    columns, rows, slices = geometry.size
    if not 0 <= wanted.first < slices:
        raise wrong_field("first_slice", f"must be 0 to {slices - 1}: the volume has {slices} slices")
    left = slices - wanted.first
    if not 0 <= wanted.count <= left:
        raise wrong_field("slice_count", f"must be 1 to {left} from slice {wanted.first} on, or 0 for all of them")
    coarsest = min(MAX_LEVEL, (max(rows, columns) - 1).bit_length())
    if not 0 <= wanted.level <= coarsest:
        raise wrong_field("level", f"must be 0 to {coarsest}: the volume has {rows} rows and {columns} columns")
    return wanted.count or left
