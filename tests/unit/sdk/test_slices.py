"""Slices of a volume, and the ones to look at first."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from fake_world import World
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.errors import DependencyUnavailable, IntegrityError, NotFound
from rekindle.leases import Lease
from rekindle.projects import Project


@pytest.fixture
def ranks(lease: Lease, world: World) -> list[volumes.SliceRank]:
    """What the service knows of the leased case's coarse label."""
    ranks = [
        volumes.SliceRank(slice=number, expected_voxels_wrong=wrong, uncertainty=0.25)
        for number, wrong in [(41, 90.5), (3, 70.0), (42, 70.0), (4, 2.0), (5, 1.5), (6, 1.0)]
    ]
    world.slice_ranks[lease.case.coarse_mask_volume_id] = ranks
    return ranks


def test_slices_arrive_as_an_array(project: Project, lease: Lease) -> None:
    """Those asked for, with their place, spacing in the array's order, and window."""
    stack = project.read_slices(lease.case.volume_id, 3, 2, level=1)
    assert ((2, 4, 2), "int16", 3, 1) == (stack.shape, stack.dtype, stack.first_slice, stack.level)
    assert ((3.0, 0.75, 0.5), (-160.0, 240.0)) == (stack.spacing_mm, stack.window)
    np.testing.assert_array_equal([[[3] * 2] * 4, [[4] * 2] * 4], stack.array())
    assert stack == lease.read_slices(3, 2, level=1)


def test_slices_are_read_again_when_the_service_was_away(project: Project, world: World) -> None:
    """Reading changes nothing, so it is repeated."""
    world.failures["ReadVolume"] = [DependencyUnavailable("restarting")]
    assert (9, 8, 4) == project.read_slices("volume").shape
    assert 2 == len(world.requests("ReadVolume"))


def test_incomplete_slices_are_refused(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Fewer bytes than the header announces are not handed on."""
    header = volumes.ReadVolumeHeader(slices=1, rows=2, columns=2, voxel_type=volumes.VOXEL_TYPE_UINT8)
    parts = [volumes.ReadVolumeResponse(header=header), volumes.ReadVolumeResponse(chunk=b"abc")]
    monkeypatch.setattr(project._services.caller, "stream", lambda *_, **__: iter(parts))
    with pytest.raises(IntegrityError, match="incomplete"):
        project.read_slices("volume")


def test_slices_to_look_at_first(lease: Lease, world: World, ranks: list[volumes.SliceRank]) -> None:
    """In the service's order, of one organ when it is named."""
    found = lease.ranked_slices(organ="liver", limit=3)
    assert [(41, 90.5, 0.25), (3, 70.0, 0.25), (42, 70.0, 0.25)] == [
        (rank.slice, rank.expected_voxels_wrong, rank.uncertainty) for rank in found
    ]
    (request,) = world.requests("RankSlices")
    assert ("liver", lease.case.coarse_mask_volume_id) == (request.organ_id, request.mask_volume_id)


def test_a_label_of_which_nothing_is_known_has_no_ranks(lease: Lease, project: Project) -> None:
    """A lease says so by an empty list, a project by the error."""
    assert [] == lease.ranked_slices()
    with pytest.raises(NotFound):
        project.ranked_slices(lease.case.coarse_mask_volume_id)


def test_next_names_the_slices_to_look_at_first(
    command: Callable[..., Any], project: Project, world: World, tmp_path: Any
) -> None:
    """`rekindle next` names five of them; without any it says nothing of slices and works all the same."""
    for number, known in enumerate((True, False)):
        case = project.add_case(b"image %d" % number)
        world.give_coarse_label(case.id, b"coarse %d" % number)
        if known:
            mask = world.cases[case.id].coarse_label.mask_volume_id
            world.slice_ranks[mask] = [volumes.SliceRank(slice=k) for k in (41, 3, 42, 4, 5, 6)]
        result = command("next", "--out", tmp_path)
        assert 0 == result.exit_code
        assert known == ("Look first at slices 41, 3, 42, 4, 5 (counted from 0)." in result.stdout)
