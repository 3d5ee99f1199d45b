"""How a campaign divides its cases, and which data it accepts."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import psutil
import pytest
from rekindle.errors import AlreadyExists, InvalidInput
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume
from rekindle_local.campaign import Plan, organ_statuses, round_sizes
from rekindle_local.dataset import DataSet
from rekindle_local.stack import Stack, StackOptions

SHARES = (0.2, 0.2, 0.3, 0.3)


@pytest.mark.parametrize(
    ("cases", "sizes"),
    [(10, [2, 2, 3, 3]), (4, [1, 1, 1, 1]), (3, [1, 1, 1]), (1, [1]), (0, []), (15, [3, 3, 4, 5])],
)
def test_rounds_take_every_case_and_are_small_first(cases: int, sizes: list[int]) -> None:
    """Sizes follow the shares, hold at least one case each, and add up to all cases."""
    assert sizes == round_sizes(cases, SHARES)


def test_fourteen_cases_hold_four_out() -> None:
    """The demo's real target set: ten cases in four rounds, four held out."""
    policy = Plan().policy(14)

    assert 4 == policy.held_out.number
    assert [2, 2, 3, 3] == policy.sizes


def test_a_missing_label_is_named(tmp_path: Path) -> None:
    """An image without its label is refused by name."""
    fill(tmp_path / "seed" / "ct", ["a", "b"], labels=["a"])
    fill(tmp_path / "target", ["t"], labels=["t"])

    with pytest.raises(InvalidInput, match="lacks b"):
        DataSet.read(tmp_path)


def test_mr_may_be_missing_and_ct_seeds_are_drawn_by_seed(tmp_path: Path) -> None:
    """Without seed/mr the data is read; the same seed draws the same CT seeds, another one others."""
    names = [f"s{number:02d}" for number in range(12)]
    fill(tmp_path / "seed" / "ct", names, labels=names)
    fill(tmp_path / "target", ["t"], labels=["t"])
    data = DataSet.read(tmp_path)

    drawn = [pair.name for pair in data.with_seed_ct(3, seed=0).seed_ct]

    assert () == data.seed_mr
    assert 3 == len(set(drawn))
    assert drawn == [pair.name for pair in data.with_seed_ct(3, seed=0).seed_ct]
    assert drawn != [pair.name for pair in data.with_seed_ct(3, seed=1).seed_ct]


@pytest.mark.parametrize("count", [0, 13])
def test_more_ct_seeds_than_there_are_is_refused(tmp_path: Path, count: int) -> None:
    """The message says how many the data has."""
    names = [f"s{number:02d}" for number in range(12)]
    fill(tmp_path / "seed" / "ct", names, labels=names)
    fill(tmp_path / "target", ["t"], labels=["t"])

    with pytest.raises(InvalidInput, match="1 to 12"):
        DataSet.read(tmp_path).with_seed_ct(count, seed=0)


def test_organ_statuses_say_what_an_annotator_would() -> None:
    """Equal masks are accepted, different ones edited, an organ that is not there absent."""
    coarse, truth = np.zeros((2, 3, 4), np.uint8), np.zeros((2, 3, 4), np.uint8)
    coarse[0, 0, 0] = truth[0, 0, 0] = 1

    assert {"liver": "accepted", "spleen": "absent"} == organ_statuses(volume(coarse), volume(truth))
    truth[1, 1, 1] = 1
    truth[1, 2, 2] = 2
    assert {"liver": "edited", "spleen": "edited"} == organ_statuses(volume(coarse), volume(truth))


def test_a_second_stack_on_the_same_state_is_refused(tmp_path: Path) -> None:
    """Two stacks would write the same databases; the second one names the process that runs."""
    first = Stack(StackOptions(state=tmp_path, port=0))
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "stack.json").write_text(live_process_entry())

    with pytest.raises(AlreadyExists, match="already runs"):
        first.start()


def live_process_entry() -> str:
    return json.dumps({"scheduler": {"pid": os.getpid(), "started": psutil.Process().create_time()}})


def fill(folder: Path, images: list[str], *, labels: list[str]) -> None:
    for kind, names in (("images", images), ("labels", labels)):
        (folder / kind).mkdir(parents=True)
        for name in names:
            (folder / kind / f"{name}.nii.gz").touch()


def volume(voxels: np.ndarray) -> Volume:
    geometry = Geometry(
        size=voxels.shape[::-1],
        spacing_mm=(1.0, 1.0, 1.0),
        origin_mm=(0.0, 0.0, 0.0),
        direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
    )
    return Volume(voxels=voxels, geometry=geometry)
