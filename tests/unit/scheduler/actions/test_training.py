"""What the scheduler asks the trainer for."""

from __future__ import annotations

import pytest
from rekindle.vocabulary import Modality, RunKind
from rekindle_scheduler.adapters.trainer import _spec  # pyright: ignore[reportPrivateUsage]
from rekindle_scheduler.domain.ids import ProjectId, RunId
from rekindle_scheduler.ports import RunLimits, RunRequest


@pytest.mark.parametrize("largest", [True, False])
def test_the_policy_on_components_is_part_of_the_run(largest: bool) -> None:
    """A project that keeps every component says so to the trainer."""
    request = RunRequest(
        run_id=RunId("r"),
        project_id=ProjectId("p"),
        kind=RunKind.SUSTAINER,
        preset="tiny",
        recipe="paper",
        seed=1,
        modality=Modality.CT,
        organs=(),
        training=(),
        largest_component=largest,
        limits=RunLimits(version=1, window=None, gpu_seconds_budget=0.0),
    )

    assert _spec(request).keep_all_components is not largest
