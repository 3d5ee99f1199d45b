"""Slices of a coarse label by how much of them is expected to be wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rekindle_inference.domain.records import ModelVersionId, ProjectId, VolumeId

#: Name under which the sums over all organs are kept; no organ can have it.
ALL_ORGANS = ""
#: Slices below this are not kept: nobody looks at them first.
LEAST_VOXELS = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRank:
    #: Along k of the native grid, from 0.
    slice: int
    #: See `rekindle_imaging.uncertainty`.
    voxels_wrong: float
    uncertainty: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SliceRanks:
    """What a prediction says of the slices of its mask."""

    mask_volume_id: VolumeId
    project_id: ProjectId
    model_version_id: ModelVersionId
    #: By organ id, and `ALL_ORGANS`; most voxels first.
    organs: Mapping[str, tuple[SliceRank, ...]]


def ranked(voxels_wrong: Sequence[float], uncertainty: Sequence[float]) -> tuple[SliceRank, ...]:
    """Slices worth a look, most voxels first, equal ones in their order; rounded to a tenth of a voxel."""
    ranks = [
        SliceRank(slice=k, voxels_wrong=round(float(wrong), 1), uncertainty=round(float(doubt), 4))
        for k, (wrong, doubt) in enumerate(zip(voxels_wrong, uncertainty, strict=True))
        if wrong >= LEAST_VOXELS
    ]
    return tuple(sorted(ranks, key=lambda rank: (-rank.voxels_wrong, rank.slice)))
