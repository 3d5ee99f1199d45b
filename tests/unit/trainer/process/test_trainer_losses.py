"""Losses against numbers by hand, torch and MONAI."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from monai.losses import DiceLoss
from rekindle_trainer.process.training.losses import (
    batch_dice,
    class_means,
    class_weights,
    cross_entropy,
    dice_loss,
    distillation_loss,
    igniter_loss,
    sustainer_loss,
)

ALL = torch.ones(2, 3, dtype=torch.bool)


def example() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(2, 3, 4, 4, generator=generator), torch.randint(0, 3, (2, 4, 4), generator=generator)


def test_dice_loss_is_the_formula_with_squared_denominators_over_the_batch() -> None:
    """Summed by numpy over batch and pixels, averaged over classes with background."""
    logits, labels = example()
    p = logits.softmax(1).numpy()
    losses = []
    for c in range(3):
        t = (labels.numpy() == c).astype(float)
        losses.append(1 - (2 * (p[:, c] * t).sum() + 1e-5) / ((p[:, c] ** 2).sum() + t.sum() + 1e-5))
    assert pytest.approx(np.mean(losses), abs=1e-6) == dice_loss(logits, labels, ALL).item()


def test_cross_entropy_is_torchs_where_all_organs_are_reviewed() -> None:
    """Without weights it is the mean of torch's; with weights the mean is over voxels."""
    logits, labels = example()
    assert pytest.approx(F.cross_entropy(logits, labels).item(), abs=1e-6) == cross_entropy(logits, labels, ALL).item()
    weights = torch.tensor([0.2, 0.5, 0.9])
    per_voxel = F.cross_entropy(logits, labels, weights, reduction="none")
    assert pytest.approx(per_voxel.mean().item(), abs=1e-6) == cross_entropy(logits, labels, ALL, weights).item()


def test_networks_losses_are_the_stated_sums() -> None:
    """Sustainer: half MONAI's Dice, half cross-entropy; igniter: Dice plus weighted cross-entropy."""
    logits, labels = example()
    monai = DiceLoss(softmax=True, to_onehot_y=True, squared_pred=True, batch=True)(logits, labels[:, None]).item()
    entropy = F.cross_entropy(logits, labels).item()
    shares = torch.tensor([(labels == c).float().mean() for c in range(3)])
    weighted = F.cross_entropy(logits, labels, 1 - shares, reduction="none").mean().item()
    assert pytest.approx(0.5 * entropy + 0.5 * monai, abs=1e-5) == sustainer_loss(logits, labels, ALL).item()
    assert pytest.approx(weighted + monai, abs=1e-5) == igniter_loss(logits, labels, ALL).item()


def test_class_weights_are_one_minus_the_share_of_the_batch() -> None:
    """Three of four voxels are background, one is organ 2."""
    assert [0.25, 1.0, 0.75] == class_weights(torch.tensor([[[0, 0], [0, 2]]]), 3).tolist()


def test_distillation_is_half_the_symmetric_divergence_at_temperature_two() -> None:
    """Means (2, 0) against (0, 0): probabilities e/(1+e) and 1/2, whose log odds differ by one."""
    means = torch.tensor([[2.0, 0.0], [5.0, 1.0]])
    others = torch.tensor([[0.0, 0.0], [1.0, 7.0]])
    p = math.e / (1 + math.e)
    by_hand = 0.5 * (
        p * math.log(p / 0.5) + (1 - p) * math.log((1 - p) / 0.5)
        + 0.5 * math.log(0.5 / p) + 0.5 * math.log(0.5 / (1 - p))
    )  # fmt: skip
    absent = torch.tensor([True, False])
    assert pytest.approx(0.1155293, abs=1e-6) == by_hand
    actual = distillation_loss((means, torch.tensor([True, True])), (others, absent))
    assert pytest.approx(by_hand, abs=1e-6) == actual.item()


def test_distillation_without_a_common_class_is_zero() -> None:
    """Nothing to compare is no loss, and no NaN."""
    means = torch.randn(2, 2)
    present = torch.tensor([[True, False], [False, True]])
    assert 0.0 == distillation_loss((means, present[0]), (means + 1, present[1])).item()


def test_class_means_average_logits_over_true_voxels() -> None:
    """Two voxels of class 0 with logits (1, 3) and (5, 7), none of class 1."""
    logits = torch.tensor([[[[1.0, 5.0]], [[3.0, 7.0]]]])
    means, present = class_means(logits, torch.tensor([[[0, 0]]]), torch.ones(1, 2, dtype=torch.bool))
    assert [3.0, 5.0] == means[0].tolist()
    assert [True, False] == present.tolist()


def test_an_unreviewed_organ_and_background_count_as_one_class() -> None:
    """Cross-entropy sees -log(p background + p organ) at voxels of either, -log p elsewhere."""
    logits, labels = example()
    reviewed = ALL.clone()
    reviewed[1, 2] = False
    p = logits.softmax(1).numpy()
    total = 0.0
    for n, i, j in np.ndindex(2, 4, 4):
        c = int(labels[n, i, j])
        likelihood = p[n, 0, i, j] + p[n, 2, i, j] if n == 1 and c in (0, 2) else p[n, c, i, j]
        total -= math.log(likelihood)
    assert pytest.approx(total / 32, abs=1e-5) == cross_entropy(logits, labels, reviewed).item()


def test_what_an_unreviewed_organ_is_labelled_changes_nothing() -> None:
    """Moving its voxels to background leaves the loss and its gradient as they were."""
    logits, labels = example()
    reviewed = ALL.clone()
    reviewed[:, 2] = False
    gradients, values = [], []
    for truth in (labels, torch.where(labels == 2, 0, labels)):
        own = logits.clone().requires_grad_()
        value = sustainer_loss(own, truth, reviewed)
        value.backward()
        assert own.grad is not None
        gradients.append(own.grad)
        values.append(value.item())
    assert values[0] == values[1]
    assert torch.equal(gradients[0], gradients[1])


def test_gradients_are_finite_where_only_some_samples_are_masked() -> None:
    """A sample without unreviewed organs beside one with them gives no NaN."""
    logits, labels = example()
    reviewed = ALL.clone()
    reviewed[0, 1] = False
    own = logits.clone().requires_grad_()
    igniter_loss(own, labels, reviewed).backward()
    assert own.grad is not None
    assert bool(torch.isfinite(own.grad).all())


def test_dice_keeps_reviewed_organs_of_a_masked_sample() -> None:
    """With organ 2 reviewed nowhere only organ 1's Dice is left."""
    logits, labels = example()
    reviewed = ALL.clone()
    reviewed[:, 2] = False
    p, t = logits.softmax(1).numpy()[:, 1], (labels.numpy() == 1).astype(float)
    expected = 1 - (2 * (p * t).sum() + 1e-5) / ((p**2).sum() + t.sum() + 1e-5)
    assert pytest.approx(expected, abs=1e-6) == dice_loss(logits, labels, reviewed).item()


def test_batch_dice_is_the_mean_over_organs_and_leaves_out_what_nobody_reviewed() -> None:
    """Organ 1: 2 of 2 and 3 voxels meet (0.8); organ 2 is wrong but unreviewed; a batch without organs has none."""
    labels = torch.tensor([[[1, 1, 0, 2]]])
    logits = F.one_hot(torch.tensor([[[1, 1, 1, 0]]]), 3).movedim(-1, 1).float()
    all_reviewed = torch.ones(1, 3, dtype=torch.bool)

    assert batch_dice(logits, labels, torch.tensor([[True, True, False]])) == pytest.approx(0.8)
    assert batch_dice(logits, labels, all_reviewed) == pytest.approx(0.4)
    background = F.one_hot(torch.zeros(1, 1, 4, dtype=torch.long), 3).movedim(-1, 1).float()
    assert batch_dice(background, torch.zeros(1, 1, 4, dtype=torch.long), all_reviewed) is None
