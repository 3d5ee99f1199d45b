"""Optimisers and learning rates as functions of the step."""

from __future__ import annotations

import math

import torch
from torch import nn

from rekindle_trainer.domain.presets import Phase

STAIRCASE_STEPS = 500
STAIRCASE_FACTOR = 0.95
POLY_POWER = 0.9
SGD_MOMENTUM = 0.9


def build_optimizer(network: nn.Module, phase: Phase) -> torch.optim.Optimizer:
    """SGD decays every parameter (TransUNet); Adam and AdamW decay kernels only.

    Adam's coupled decay `w` equals a loss term of w times half the sum of squares (Dou et al.).
    """
    parameters = [p for p in network.parameters() if p.requires_grad]
    if phase.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, lr=phase.learning_rate, momentum=SGD_MOMENTUM, weight_decay=phase.weight_decay
        )
    kernels = [p for p in parameters if p.ndim in (2, 4)]
    others = [p for p in parameters if p.ndim not in (2, 4)]
    groups = [
        {"params": kernels, "weight_decay": phase.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    kind = torch.optim.Adam if phase.optimizer == "adam" else torch.optim.AdamW
    return kind([group for group in groups if group["params"]], lr=phase.learning_rate)


def learning_rate(phase: Phase, step: int, steps: int) -> float:
    """Learning rate of `step` (from 0) of `steps`."""
    if phase.schedule == "staircase":
        factor = STAIRCASE_FACTOR ** (step // STAIRCASE_STEPS)
    elif phase.schedule == "poly":
        factor = (1.0 - step / steps) ** POLY_POWER
    else:
        factor = 0.5 * (1.0 + math.cos(math.pi * step / steps))
    return phase.learning_rate * factor * min(1.0, (step + 1) / max(1, phase.warmup_steps))
