"""The igniter: the 2D network of Dou et al. 2020 for unpaired CT and MR, kernels shared, norms per modality."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from rekindle_trainer.domain.presets import IgniterConfig

_NEGATIVE_SLOPE = 0.2
#: The trunk halves its maps three times; the head gives all of it back in one pixel shuffle.
STRIDE = 8


class ModalityNorm(nn.Module):
    """Batch normalisation whose scale, shift and moving statistics are of one modality each."""

    def __init__(self, channels: int, modalities: tuple[str, ...]) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({m: nn.BatchNorm2d(channels, eps=1e-3, momentum=0.1) for m in modalities})

    def forward(self, maps: torch.Tensor, modality: str) -> torch.Tensor:
        return self.norms[modality](maps)


class NormConv(nn.Module):
    """Norm, LeakyReLU, 3x3 convolution without bias."""

    def __init__(self, c_in: int, c_out: int, modalities: tuple[str, ...], *, dilation: int = 1) -> None:
        super().__init__()
        self.norm = ModalityNorm(c_in, modalities)
        self.conv = nn.Conv2d(c_in, c_out, 3, padding=dilation, dilation=dilation, bias=False)

    def forward(self, maps: torch.Tensor, modality: str) -> torch.Tensor:
        return self.conv(F.leaky_relu(self.norm(maps, modality), _NEGATIVE_SLOPE))


class ResidualBlock(nn.Module):
    """Two pre-activation convolutions; where channels grow, the identity gets zero channels on both sides."""

    def __init__(
        self, c_in: int, c_out: int, modalities: tuple[str, ...], *, dropout: float, dilation: int = 1
    ) -> None:
        super().__init__()
        self.first = NormConv(c_in, c_out, modalities, dilation=dilation)
        self.second = NormConv(c_out, c_out, modalities, dilation=dilation)
        self.dropout = nn.Dropout(dropout)
        self.before = (c_out - c_in) // 2
        self.after = c_out - c_in - self.before

    def forward(self, maps: torch.Tensor, modality: str) -> torch.Tensor:
        change = self.dropout(self.first(maps, modality))
        change = self.dropout(self.second(change, modality))
        if self.before or self.after:
            maps = F.pad(maps, (0, 0, 0, 0, self.before, self.after))
        return maps + change


class Igniter(nn.Module):
    """Stride-8 residual trunk, dilated at the end, and a pixel-shuffle head.

    `modalities` names the sets of norms, e.g. ``("CT", "MR")``; every kernel is shared by all of them.
    """

    def __init__(self, config: IgniterConfig, classes: int, modalities: tuple[str, ...]) -> None:
        super().__init__()
        self.config = config
        self.modalities = modalities
        w, drop = config.base_width, config.dropout
        self.stem = nn.Conv2d(config.in_channels, w, 3, padding=1, bias=False)
        #: (channels in, channels out, dilation, max-pool after) of each residual block.
        plan = [
            (w, w, 1, True),
            (w, 2 * w, 1, True),
            (2 * w, 4 * w, 1, False),
            (4 * w, 4 * w, 1, True),
            (4 * w, 8 * w, 1, False),
            (8 * w, 8 * w, 1, False),
            (8 * w, 16 * w, 1, False),
            *[(16 * w, 16 * w, 1, False)] * 3,
            (16 * w, 32 * w, 1, False),
            (32 * w, 32 * w, 1, False),
            *[(32 * w, 32 * w, 2, False)] * 2,
        ]
        self.blocks = nn.ModuleList(
            ResidualBlock(a, b, modalities, dropout=drop, dilation=dilation) for a, b, dilation, _ in plan
        )
        self.pooled = tuple(pool for *_, pool in plan)
        self.tail = nn.ModuleList(NormConv(32 * w, 32 * w, modalities) for _ in range(2))
        features = config.head_features * classes
        self.expand = nn.Conv2d(32 * w, STRIDE**2 * features, 3, padding=1, bias=False)
        self.expand_norm = ModalityNorm(STRIDE**2 * features, modalities)
        self.logits = nn.Conv2d(features, classes, 5, padding=2, bias=False)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=_NEGATIVE_SLOPE)

    def forward(self, image: torch.Tensor, modality: str) -> torch.Tensor:
        """Logits (N, K, H, W) of the middle slices of `image` (N, 3, H, W); H and W are multiples of 8.

        Raises KeyError for a modality that the network has no norms for.
        """
        maps = self.stem(image)
        for block, pool in zip(self.blocks, self.pooled, strict=True):
            maps = block(maps, modality)
            if pool:
                maps = F.max_pool2d(maps, 2)
        for layer in self.tail:
            maps = layer(maps, modality)
        maps = F.leaky_relu(self.expand_norm(self.expand(maps), modality), _NEGATIVE_SLOPE)
        return self.logits(F.pixel_shuffle(maps, STRIDE))


class SingleModality(nn.Module):
    """An igniter with its modality fixed: what is exported."""

    def __init__(self, network: Igniter, modality: str) -> None:
        super().__init__()
        self.network = network
        self.modality = modality

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.network(image, self.modality)
