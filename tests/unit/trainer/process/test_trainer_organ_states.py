"""What an annotator states about an organ decides what is learned from it and how it is measured."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from rekindle.vocabulary import Digest, Example, ExampleSource, Modality, OrganState, OrganStatus
from rekindle_imaging.geometry import Geometry
from rekindle_trainer.process.evaluation import organ_metrics
from rekindle_trainer.process.training.losses import igniter_loss, sustainer_loss

ORGANS = ("liver", "spleen")


def reviewed(spleen: str) -> torch.Tensor:
    """(1, 3): background, liver and spleen of a case whose spleen has this status."""
    example = Example(
        case_id="c",
        source=ExampleSource.TARGET,
        modality=Modality.CT,
        image_digest=Digest("i"),
        mask_digest=Digest("m"),
        organ_states=(
            OrganState(organ_id="liver", status=OrganStatus.EDITED),
            OrganState(organ_id="spleen", status=OrganStatus(spleen)),
        ),
    )
    statuses = (example.status_of(organ_id) for organ_id in ORGANS)
    return torch.tensor([[True, *(status is not OrganStatus.NOT_REVIEWED for status in statuses)]])


def logits(spleen_voxels: int) -> torch.Tensor:
    """(1, 3, 4, 4): sure of liver in the first row, of spleen in so many voxels after it, of background elsewhere."""
    classes = torch.zeros(16, dtype=torch.long)
    classes[:4] = 1
    classes[4 : 4 + spleen_voxels] = 2
    return 8.0 * torch.nn.functional.one_hot(classes, 3).float().T.reshape(1, 3, 4, 4)


#: Liver in the first row; nothing is labelled spleen.
LABELS = torch.zeros(1, 4, 4, dtype=torch.long)
LABELS[0, 0] = 1


@pytest.mark.parametrize("loss", [sustainer_loss, igniter_loss])
@pytest.mark.parametrize("status", sorted(OrganStatus))
def test_a_spleen_where_there_is_none_costs_unless_nobody_looked(loss, status: str) -> None:
    """Absent and out of view are true empties; not reviewed says nothing, so a spleen there is no mistake."""
    mask = reviewed(status)
    right, wrong = (float(loss(logits(voxels), LABELS, mask)) for voxels in (0, 6))
    if status == "not_reviewed":
        assert right == pytest.approx(wrong, abs=1e-3)
    else:
        assert wrong > right + 0.5


def test_a_spleen_where_there_is_none_is_measured_as_wrong() -> None:
    """Dice 0 for a prediction in a patient without the organ; undefined, so left out of means, without one."""
    geometry = Geometry(
        size=(4, 4, 1), spacing_mm=(1.0, 1.0, 1.0), origin_mm=(0.0, 0.0, 0.0), direction=(1, 0, 0, 0, 1, 0, 0, 0, 1)
    )
    nothing = np.zeros((1, 4, 4), bool)
    something = nothing.copy()
    something[0, 0] = True
    assert 0.0 == organ_metrics(something, nothing, geometry)["dice"]
    assert organ_metrics(nothing, nothing, geometry)["dice"] is None
