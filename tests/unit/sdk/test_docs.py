"""The documentation's examples run as they are written."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import rekindle
import SimpleITK as sitk
from fake_world import World
from rekindle.client import Client

DOCS = Path(__file__).parents[3] / "docs"


def blocks(name: str, language: str) -> list[str]:
    """The code blocks of one language in a page."""
    return re.findall(rf"```{language}\n(.*?)```", (DOCS / name).read_text(), re.DOTALL)


def test_python_examples_label_everything(
    client: Client, world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Set-up and annotation loop of sdk.md leave a project in which every case is labelled, with its time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rekindle, "connect", lambda address: Client(client._services))
    monkeypatch.setattr(Client, "close", lambda self: None)
    for folder in ("seed/images", "seed/labels", "scans"):
        (tmp_path / folder).mkdir(parents=True)
        image = sitk.GetImageFromArray(np.full((2, 3, 4), len(folder), np.int16))
        sitk.WriteImage(image, tmp_path / folder / "a.nii.gz")
    # The last one is run against the services themselves.
    set_up, loop, _ = blocks("sdk.md", "python")
    exec(compile(set_up, "sdk.md", "exec"), {})
    (case,) = world.cases.values()
    world.give_coarse_label(case.case_id, (tmp_path / "seed/labels/a.nii.gz").read_bytes())
    exec(compile(loop, "sdk.md", "exec"), {})
    (submission,) = world.submissions
    assert (case.case_id, 1) == (submission.case_id, len(world.seeds))
    assert submission.time_segments[0].active_seconds > 0
