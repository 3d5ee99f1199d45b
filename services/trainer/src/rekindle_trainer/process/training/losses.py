"""The losses of both networks, with organs that nobody reviewed masked out.

For a sample whose organ c was not reviewed, nothing is known of c, so a voxel labelled background may be c, and
one labelled c may be background. Cross-entropy therefore sees both as one class with the sum of their
probabilities; Dice leaves both channels of that sample out. Reviewed organs keep every voxel: each voxel is known to
be in the organ or not.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from monai.losses import DiceLoss

#: Dice per class over the whole batch, squared denominators, on probabilities and one-hot labels as they are.
_DICE = DiceLoss(squared_pred=True, batch=True, smooth_nr=1e-5, smooth_dr=1e-5, reduction="none")
KD_TEMPERATURE = 2.0


def known_classes(reviewed: torch.Tensor) -> torch.Tensor:
    """(N, K) -> (N, K): classes whose extent is known; background's is where every organ was reviewed."""
    known = reviewed.clone()
    known[:, 0] = reviewed.all(dim=1)
    return known


def one_hot(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """(N, H, W) class indices -> (N, K, H, W) float32."""
    return F.one_hot(labels.long(), classes).movedim(-1, 1).float()


def dice_loss(logits: torch.Tensor, labels: torch.Tensor, reviewed: torch.Tensor) -> torch.Tensor:
    """Mean over classes of 1 - 2 sum(p t) / (sum p^2 + sum t^2), sums over the batch (V-Net; TransUNet).

    logits (N, K, H, W) float32, labels (N, H, W), reviewed (N, K) bool. Classes known nowhere are left out.
    """
    known = known_classes(reviewed)
    mask = known[:, :, None, None].float()
    per_class = _DICE(logits.softmax(1) * mask, one_hot(labels, logits.shape[1]) * mask).flatten()
    present = known.any(dim=0).float()
    return (per_class * present).sum() / present.sum().clamp(min=1)


@torch.no_grad()
def batch_dice(logits: torch.Tensor, labels: torch.Tensor, reviewed: torch.Tensor) -> float | None:
    """Mean Dice of the organs in this batch, of hard predictions; None where the batch has no organ.

    logits (N, K, H, W), labels (N, H, W), reviewed (N, K) bool. A figure to watch, never trained on.
    """
    classes = logits.shape[1]
    known = reviewed[:, 1:, None, None]
    predicted = one_hot(logits.argmax(1), classes)[:, 1:] * known
    true = one_hot(labels, classes)[:, 1:] * known
    both = 2 * (predicted * true).sum((0, 2, 3))
    total = (predicted + true).sum((0, 2, 3))
    present = total > 0
    return float((both[present] / total[present]).mean()) if present.any() else None


def cross_entropy(
    logits: torch.Tensor, labels: torch.Tensor, reviewed: torch.Tensor, weights: torch.Tensor | None = None
) -> torch.Tensor:
    """Mean over voxels of -weight log p(label), where unreviewed organs and background are one class.

    The mean is over all voxels, not over the weights (Dou et al.). The merged class has background's weight.
    """
    known = known_classes(reviewed)
    merged = known.logical_not()  # (N, K): {background, unreviewed organs}; nothing where all were reviewed
    log_p = logits.log_softmax(1)
    # Background takes part always: a sum over no class is -inf, whose gradient is NaN even where it is not chosen.
    counted = merged.clone()
    counted[:, 0] = True
    log_merged = log_p.masked_fill(~counted[:, :, None, None], float("-inf")).logsumexp(1)
    own = log_p.gather(1, labels.long().unsqueeze(1)).squeeze(1)
    is_merged = merged.gather(1, labels.long().flatten(1)).view_as(labels)
    log_likelihood = torch.where(is_merged, log_merged, own)
    if weights is not None:
        log_likelihood = log_likelihood * weights[torch.where(is_merged, 0, labels.long())]
    return -log_likelihood.mean()


def class_weights(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """(K,) one minus the class's share of the batch's voxels (Dou et al.)."""
    counts = torch.bincount(labels.flatten().long(), minlength=classes)
    return 1.0 - counts.float() / labels.numel()


def igniter_loss(logits: torch.Tensor, labels: torch.Tensor, reviewed: torch.Tensor) -> torch.Tensor:
    """Dice + class-weighted cross-entropy of one modality's batch (Dou et al. 2020)."""
    weights = class_weights(labels, logits.shape[1])
    return dice_loss(logits, labels, reviewed) + cross_entropy(logits, labels, reviewed, weights)


def sustainer_loss(logits: torch.Tensor, labels: torch.Tensor, reviewed: torch.Tensor) -> torch.Tensor:
    """0.5 cross-entropy + 0.5 Dice (TransUNet)."""
    return 0.5 * cross_entropy(logits, labels, reviewed) + 0.5 * dice_loss(logits, labels, reviewed)


def class_means(
    logits: torch.Tensor, labels: torch.Tensor, reviewed: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean logits (K, K) over the true voxels of each class (first axis), and (K,) whether it has any."""
    truth = one_hot(labels, logits.shape[1]) * known_classes(reviewed)[:, :, None, None].float()
    counts = truth.sum(dim=(0, 2, 3))
    sums = torch.einsum("nchw,nkhw->ck", truth, logits)
    return sums / counts.clamp(min=1)[:, None], counts > 0


def distillation_loss(
    means: tuple[torch.Tensor, torch.Tensor], others: tuple[torch.Tensor, torch.Tensor]
) -> torch.Tensor:
    """Knowledge distillation between two modalities (Dou et al. 2020): results of `class_means` of each.

    Per class that both batches have: half of KL(p||q) + KL(q||p) of the softened (T = 2) mean logits; mean over
    those classes, 0 where there are none. Gradients flow to both.
    """
    log_p = (means[0] / KD_TEMPERATURE).log_softmax(1)
    log_q = (others[0] / KD_TEMPERATURE).log_softmax(1)
    per_class = 0.5 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(1)
    both = (means[1] & others[1]).float()
    return (per_class * both).sum() / both.sum().clamp(min=1)
