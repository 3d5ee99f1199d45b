"""Slices -> tensors of one step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from rekindle_imaging.preprocessing import stack_channels

from rekindle_trainer.process.training.augment import augment
from rekindle_trainer.process.training.data import TrainingCase
from rekindle_trainer.process.training.sampling import SliceRef, stream_seed


@dataclass(frozen=True)
class Batch:
    """What a loss needs."""

    #: (N, C, H, W) float32
    images: torch.Tensor
    #: (N, H, W) int64 class indices
    labels: torch.Tensor
    #: (N, K) bool
    reviewed: torch.Tensor


@dataclass(frozen=True)
class Assembly:
    """How slices become tensors; the same for every step of a phase."""

    channels: int
    augmentation: str
    seed: int
    phase: str
    device: torch.device
    channels_last: bool = False

    def batch(self, cases: Sequence[TrainingCase], refs: Sequence[SliceRef], step: int) -> Batch:
        """Changes to a slice depend on (seed, image, slice, phase, step), not on its place in the batch."""
        images, labels = [], []
        for ref in refs:
            case = cases[ref.case]
            image = stack_channels(case.images, np.array([ref.index]), self.channels)[0]
            label = case.labels[ref.index][None].astype(np.float32)
            seed = stream_seed(self.seed, case.image_digest, ref.index, self.phase, step)[0]
            image_tensor = torch.from_numpy(np.ascontiguousarray(image, dtype=np.float32))
            image_tensor, label_tensor = augment(self.augmentation, image_tensor, torch.from_numpy(label), seed)
            images.append(image_tensor.float())
            labels.append(label_tensor[0].round().long())
        stacked = torch.stack(images)
        if self.channels_last:
            stacked = stacked.contiguous(memory_format=torch.channels_last)
        reviewed = torch.from_numpy(np.stack([cases[ref.case].reviewed for ref in refs]))
        return Batch(stacked.to(self.device), torch.stack(labels).to(self.device), reviewed.to(self.device))
