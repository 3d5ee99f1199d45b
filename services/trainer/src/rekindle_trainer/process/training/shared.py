"""What makes several processes compute what one would: norms, dropout and losses of the whole batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from rekindle_trainer.process.training.batches import Batch
from rekindle_trainer.process.training.distributed import ALONE, Ranks


@dataclass
class Share:
    """This process's part of every batch of a phase."""

    ranks: Ranks = ALONE
    #: Slices of a whole batch; the phase says how many.
    total: int = 0

    @property
    def own(self) -> slice:
        return self.ranks.part(self.total)

    def whole(self, logits: torch.Tensor, batch: Batch) -> tuple[torch.Tensor, Batch]:
        """Logits and truth of the whole batch, from those of each process's part.

        Losses of the whole batch are taken on every process; each one's gradients are of its own logits alone, so
        that added up they are the loss's.
        """
        if self.ranks.size == 1:
            return logits, batch
        joined: torch.Tensor = _Gather.apply(logits, self)  # pyright: ignore[reportAssignmentType]
        labels = self.join(batch.labels.to(torch.uint8)).to(batch.labels.dtype)
        return joined, Batch(batch.images, labels, self.join(batch.reviewed.to(torch.uint8)).bool())

    def join(self, values: torch.Tensor) -> torch.Tensor:
        """The parts of all processes, one behind the other."""
        parts = [self.total * (r + 1) // self.ranks.size - self.total * r // self.ranks.size for r in self._all]
        room = max(parts) - len(values)
        padded = torch.cat([values, values.new_zeros((room, *values.shape[1:]))]) if room else values
        return torch.cat([part[:count] for part, count in zip(self.ranks.gather(padded), parts, strict=True)])

    @property
    def _all(self) -> range:
        return range(self.ranks.size)


def share_network(network: nn.Module, ranks: Ranks) -> Share:
    """Make the batch norms and dropouts of `network` those of the whole batch; its state keeps its names."""
    share = Share(ranks)
    if ranks.size > 1:
        for module in network.modules():
            if type(module) is nn.BatchNorm2d:
                module.__class__ = SharedBatchNorm
            elif type(module) is nn.Dropout:
                module.__class__ = SharedDropout
            if isinstance(module, (SharedBatchNorm, SharedDropout)):
                module.share = share
    return share


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the parts of all processes while it trains."""

    share: Share

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or self.momentum is None or self.running_mean is None or self.running_var is None:
            return super().forward(input)
        maps, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.eps, self.share.ranks)  # pyright: ignore[reportGeneralTypeIssues]
        with torch.no_grad():
            unbiased = variance * (count / (count - 1))
            self.running_mean.lerp_(mean.to(self.running_mean.dtype), self.momentum)
            self.running_var.lerp_(unbiased.to(self.running_var.dtype), self.momentum)
            if self.num_batches_tracked is not None:
                self.num_batches_tracked.add_(1)
        return maps


class SharedDropout(nn.Dropout):
    """Dropout whose mask is drawn for the whole batch, by the same generator everywhere, and used in part."""

    share: Share

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if not self.training or self.p == 0:
            return input
        shape = (self.share.total, *input.shape[1:])
        # In the layout of `input`, as the order in memory is the order in which the mask is drawn.
        strides = (input[0].numel(), *input.stride()[1:])
        mask = torch.empty_strided(shape, strides, dtype=input.dtype, device=input.device)
        return input * mask.bernoulli_(1 - self.p).div_(1 - self.p)[self.share.own]


class _Gather(torch.autograd.Function):
    """All parts of the logits; backward is what concerns the own part."""

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, share: Share) -> torch.Tensor:
        ctx.own = share.own
        return share.join(logits)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        return gradients[0][ctx.own], None


class _Normalise(torch.autograd.Function):
    """(Normalised maps, mean, biased variance, count) with statistics of all processes' maps (N, C, H, W).

    Gradients of scale and shift are of the own part; added up over the processes they are the whole batch's.
    """

    @staticmethod
    def forward(
        ctx: Any, maps: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, eps: float, ranks: Ranks
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
        own = maps if maps.dtype == torch.float64 else maps.float()
        variance, mean = torch.var_mean(own, dim=(0, 2, 3), correction=0)
        count = torch.full_like(mean, maps.numel() // maps.shape[1])
        parts = torch.stack(ranks.gather(torch.stack([mean, variance, count]).double()))
        means, variances, counts = parts.unbind(1)
        total = counts.sum(0)
        mean = (counts * means).sum(0) / total
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / total
        mean, variance, total = mean.to(own.dtype), variance.to(own.dtype), total[0]
        ctx.save_for_backward(maps, weight, mean, (variance + eps).rsqrt(), total)
        ctx.ranks = ranks
        normalised = F.batch_norm(maps, mean, variance, weight, bias, False, 0.0, eps)
        ctx.mark_non_differentiable(mean, variance, total)
        return normalised, mean, variance, total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, None, None]:
        maps, weight, mean, scale, total = ctx.saved_tensors
        own = mean.dtype
        incoming = gradients[0].to(own)
        centred = (maps.to(own) - _channels(mean)) * _channels(scale)
        sums = torch.stack([incoming.sum((0, 2, 3)), (incoming * centred).sum((0, 2, 3))])
        means = ctx.ranks.sum(sums.to(torch.float64, copy=True)) / total
        shift, slope = means.to(own)
        change = (incoming - _channels(shift) - centred * _channels(slope)) * _channels(weight * scale)
        return change.to(maps.dtype), sums[1].to(weight.dtype), sums[0].to(weight.dtype), None, None


def _channels(values: torch.Tensor) -> torch.Tensor:
    return values[None, :, None, None]
