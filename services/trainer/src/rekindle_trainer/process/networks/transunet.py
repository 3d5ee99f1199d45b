"""The sustainer: TransUNet (Chen et al. 2021), a ResNet, a vision transformer on its maps, and a U-shaped decoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from rekindle_trainer.domain.presets import TransUNetConfig
from rekindle_trainer.process.networks.resnet import HybridResNet

#: Size in pixels of the square that becomes one token.
PATCH = 16


class Attention(nn.Module):
    """Multi-head self-attention with biases and without dropout."""

    def __init__(self, hidden: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.out = nn.Linear(hidden, hidden)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        _, count, hidden = tokens.shape

        def split(projected: torch.Tensor) -> torch.Tensor:
            return projected.view(-1, count, self.heads, hidden // self.heads).transpose(1, 2)

        mixed = F.scaled_dot_product_attention(
            split(self.query(tokens)), split(self.key(tokens)), split(self.value(tokens))
        )
        return self.out(mixed.transpose(1, 2).reshape(-1, count, hidden))


class EncoderLayer(nn.Module):
    """Pre-norm transformer layer."""

    def __init__(self, config: TransUNetConfig) -> None:
        super().__init__()
        self.attention_norm = nn.LayerNorm(config.hidden, eps=1e-6)
        self.attention = Attention(config.hidden, config.heads)
        self.mlp_norm = nn.LayerNorm(config.hidden, eps=1e-6)
        self.fc1 = nn.Linear(config.hidden, config.mlp)
        self.fc2 = nn.Linear(config.mlp, config.hidden)
        self.dropout = nn.Dropout(config.dropout)
        for dense in (self.fc1, self.fc2):
            nn.init.xavier_uniform_(dense.weight)
            nn.init.normal_(dense.bias, std=1e-6)

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        tokens = tokens + self.attention(self.attention_norm(tokens))
        change = self.dropout(F.gelu(self.fc1(self.mlp_norm(tokens))))
        return tokens + self.dropout(self.fc2(change))


class ConvBlock(nn.Sequential):
    """3x3 convolution, BatchNorm, ReLU."""

    def __init__(self, c_in: int, c_out: int) -> None:
        conv = nn.Conv2d(c_in, c_out, 3, padding=1, bias=False)
        super().__init__(conv, nn.BatchNorm2d(c_out), nn.ReLU())


class DecoderBlock(nn.Module):
    """Doubles the maps, joins the skip and convolves twice."""

    def __init__(self, c_in: int, c_skip: int, c_out: int) -> None:
        super().__init__()
        self.conv1 = ConvBlock(c_in + c_skip, c_out)
        self.conv2 = ConvBlock(c_out, c_out)

    def forward(self, maps: torch.Tensor, skip: torch.Tensor | None) -> torch.Tensor:
        maps = F.interpolate(maps, scale_factor=2, mode="bilinear", align_corners=True)
        if skip is not None:
            maps = torch.cat([maps, skip], dim=1)
        return self.conv2(self.conv1(maps))


class TransUNet(nn.Module):
    """R50-ViT-B/16 with the default configuration, narrower relatives with others."""

    def __init__(self, config: TransUNetConfig, classes: int) -> None:
        super().__init__()
        if any(side % PATCH for side in config.size):
            raise ValueError(f"image size {config.size} must be a multiple of {PATCH}")
        if config.in_channels not in (1, 3):
            raise ValueError(f"TransUNet takes 1 or 3 channels, not {config.in_channels}")
        self.config = config
        self.grid = (config.size[0] // PATCH, config.size[1] // PATCH)
        width = config.resnet_width
        self.resnet = HybridResNet(width, config.resnet_units, config.resnet_groups)
        self.patch_embedding = nn.Conv2d(16 * width, config.hidden, 1)
        self.position_embedding = nn.Parameter(torch.zeros(1, self.grid[0] * self.grid[1], config.hidden))
        self.embedding_dropout = nn.Dropout(config.dropout)
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.layers))
        self.encoder_norm = nn.LayerNorm(config.hidden, eps=1e-6)
        self.bridge = ConvBlock(config.hidden, config.decoder[0])
        skips = (8 * width, 4 * width, width, 0)
        self.decoder = nn.ModuleList(
            DecoderBlock(c_in, c_skip, c_out)
            for c_in, c_skip, c_out in zip(config.decoder[:-1], skips, config.decoder[1:], strict=True)
        )
        self.head = nn.Conv2d(config.decoder[-1], classes, 3, padding=1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (N, K, H, W) of `image` (N, C, H, W), C = 1 or 3 and (H, W) as configured."""
        if image.shape[1] == 1:
            image = image.expand(-1, 3, -1, -1)
        maps, skips = self.resnet(image)
        tokens = self.patch_embedding(maps).flatten(2).transpose(1, 2)
        tokens = self.embedding_dropout(tokens + self.position_embedding)
        for layer in self.layers:
            tokens = layer(tokens)
        tokens = self.encoder_norm(tokens)
        maps = self.bridge(tokens.transpose(1, 2).reshape(-1, self.config.hidden, *self.grid))
        for block, skip in zip(self.decoder, [*skips, None], strict=True):
            maps = block(maps, skip)
        return self.head(maps)
