"""The ResNet-50 of Big Transfer that feeds TransUNet: weight-standardised convolutions and GroupNorm."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn


class StdConv2d(nn.Conv2d):
    """Convolution whose kernels are standardised per output channel, with biased variance, on every call."""

    def standardised_weight(self) -> torch.Tensor:
        variance, mean = torch.var_mean(self.weight, dim=(1, 2, 3), keepdim=True, unbiased=False)
        return (self.weight - mean) / torch.sqrt(variance + 1e-5)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        return self._conv_forward(input, self.standardised_weight(), self.bias)


def _conv(c_in: int, c_out: int, kernel: int, stride: int = 1) -> StdConv2d:
    return StdConv2d(c_in, c_out, kernel, stride=stride, padding=kernel // 2, bias=False)


class Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1; activation after the norm."""

    def __init__(self, c_in: int, c_out: int, *, stride: int, groups: int) -> None:
        super().__init__()
        middle = c_out // 4
        self.conv1 = _conv(c_in, middle, 1)
        self.gn1 = nn.GroupNorm(groups, middle, eps=1e-6)
        self.conv2 = _conv(middle, middle, 3, stride)
        self.gn2 = nn.GroupNorm(groups, middle, eps=1e-6)
        self.conv3 = _conv(middle, c_out, 1)
        self.gn3 = nn.GroupNorm(groups, c_out, eps=1e-6)
        self.projected = stride != 1 or c_in != c_out
        if self.projected:
            self.downsample = _conv(c_in, c_out, 1, stride)
            # One group per channel and another eps than elsewhere: published weights were trained so.
            self.gn_proj = nn.GroupNorm(c_out, c_out, eps=1e-5)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        identity = self.gn_proj(self.downsample(maps)) if self.projected else maps
        change = F.relu(self.gn1(self.conv1(maps)))
        change = F.relu(self.gn2(self.conv2(change)))
        return F.relu(identity + self.gn3(self.conv3(change)))


class HybridResNet(nn.Module):
    """Three bottleneck stages up to stride 16, and the maps on the way for the decoder's skips."""

    def __init__(self, width: int, units: tuple[int, int, int], groups: int) -> None:
        super().__init__()
        self.root_conv = StdConv2d(3, width, 7, stride=2, padding=3, bias=False)
        self.root_gn = nn.GroupNorm(groups, width, eps=1e-6)
        self.stages = nn.ModuleList()
        c_in = width
        for index, count in enumerate(units):
            c_out = width * 4 * 2**index
            first = Bottleneck(c_in, c_out, stride=1 if index == 0 else 2, groups=groups)
            rest = [Bottleneck(c_out, c_out, stride=1, groups=groups) for _ in range(count - 1)]
            self.stages.append(nn.Sequential(first, *rest))
            c_in = c_out

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, list[torch.Tensor]]:
        """Maps at stride 16 of `image` (N, 3, H, W), and the skips at strides 8, 4 and 2, in this order."""
        maps = F.relu(self.root_gn(self.root_conv(image)))
        half = maps
        # Without padding the pooled maps are one row and column short of a quarter.
        maps = F.max_pool2d(maps, 3, stride=2)
        quarter = self.stages[0](maps)
        eighth = self.stages[1](quarter)
        return self.stages[2](eighth), [eighth, F.pad(quarter, (0, 1, 0, 1)), half]
