"""Files are written where they were asked for, whatever ids a service sends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fake_world import Command, World
from rekindle._names import file_name
from rekindle.api.inference.v1 import segmentations_pb2 as segmentations
from rekindle.case_folder import write_case
from rekindle.errors import InvalidInput
from rekindle.leases import Lease
from rekindle.mirror import ResultFolder
from rekindle.results import Result

LEADING_OUT = ["../x", "..", ".", "", "/tmp/x", "a/b", ".hidden", "a\0b", "a\nb", "a" * 201]


@pytest.mark.parametrize("given", LEADING_OUT)
def test_an_id_that_is_no_name_is_refused(given: str) -> None:
    """With words, and not with the id, which could be anything."""
    with pytest.raises(InvalidInput) as caught:
        file_name(given)
    assert "UNUSABLE_NAME" == caught.value.reason
    assert not given.strip("./") or given not in caught.value.message


def test_ids_that_services_make_are_names() -> None:
    """As they are."""
    for given in ("0d4a1a6e-6f2f-4f0c-9c57-0c2b2d3a4e5f", "case-1", "_x.y"):
        assert given == file_name(given)


@pytest.mark.parametrize("retracted", [True, False])
def test_following_results_touches_nothing_outside(tmp_path: Path, retracted: bool) -> None:
    """Neither what is written nor what is removed leaves the folder."""
    folder, outside = tmp_path / "results", tmp_path / "mine.nii.gz"
    outside.write_bytes(b"mine")
    message = segmentations.Result(volume_id="../mine", retracted=retracted)
    message.quality.add(organ_id="liver")
    message.abstentions.add(organ_id="liver")
    services: Any = None
    results = ResultFolder(folder)
    with pytest.raises(InvalidInput, match="cannot be the name of a file"):
        results.keep(Result.from_proto(message, services))
    assert ([], [folder, outside]) == (list(folder.iterdir()), sorted(tmp_path.iterdir(), reverse=True))
    assert b"mine" == outside.read_bytes()


def test_a_case_is_written_into_its_folder_or_not_at_all(lease: Lease, tmp_path: Path) -> None:
    """Taking cases along for offline work."""
    lease._lease.case.case_id = "../elsewhere"
    with pytest.raises(InvalidInput, match="cannot be the name of a file"):
        write_case(tmp_path / "session", lease)
    assert [] == list(tmp_path.iterdir())


def test_next_releases_a_case_that_has_no_name(command: Command, ready_case: str, world: World, tmp_path: Path) -> None:
    """Nobody is kept waiting for a case that could not be fetched."""
    new_lease = world.new_lease

    def renamed(case: Any) -> Any:
        lease = new_lease(case)
        sent = type(lease)()
        sent.CopyFrom(lease)
        sent.case.case_id = "../elsewhere"
        return sent

    world.new_lease = renamed
    result = command("next", "--out", tmp_path / "work")
    assert (2, [], 1) == (result.exit_code, list(tmp_path.iterdir()), len(world.released))
