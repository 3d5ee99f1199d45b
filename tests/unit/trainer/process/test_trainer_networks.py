"""The two networks: sizes, shapes, and what is shared and what is not."""

import numpy as np
import pytest
import torch
from rekindle_trainer.domain.presets import PRESETS, IgniterConfig, TransUNetConfig
from rekindle_trainer.process.networks.igniter import Igniter, ModalityNorm, ResidualBlock
from rekindle_trainer.process.networks.resnet import StdConv2d
from rekindle_trainer.process.networks.transunet import TransUNet
from torch import nn


def test_igniter_has_the_papers_number_of_kernel_parameters() -> None:
    """At 5 classes and width 16 the kernels of the paper's plan sum to 39.3 million."""
    by_hand = 9 * 3 * 16  # stem
    by_hand += 9 * 2 * 16 * 16  # RB16
    by_hand += 9 * (16 * 32 + 32 * 32)  # RB32
    by_hand += 9 * (32 * 64 + 3 * 64 * 64)  # RB64 x 2
    by_hand += 9 * (64 * 128 + 3 * 128 * 128)  # RB128 x 2
    by_hand += 9 * (128 * 256 + 3 * 256 * 256)  # RB256 x 2
    by_hand += 9 * 4 * 256 * 256  # RB256 x 2
    by_hand += 9 * (256 * 512 + 3 * 512 * 512)  # RB512 x 2
    by_hand += 9 * 4 * 512 * 512  # dilated RB512 x 2
    by_hand += 9 * 2 * 512 * 512  # two convolutions of 512
    by_hand += 9 * 512 * (64 * 8 * 5)  # before the pixel shuffle
    by_hand += 25 * (8 * 5) * 5  # 5x5 to logits
    with torch.device("meta"):
        network = Igniter(IgniterConfig(), 5, ("CT", "MR"))
    kernels = [module.weight for module in network.modules() if isinstance(module, nn.Conv2d)]
    assert 39_302_456 == by_hand
    assert by_hand == sum(kernel.numel() for kernel in kernels)
    assert all(module.bias is None for module in network.modules() if isinstance(module, nn.Conv2d))


def test_igniter_kernels_are_shared_and_norms_are_not() -> None:
    """A second modality adds BatchNorm parameters only: two per channel."""
    with torch.device("meta"):
        one = Igniter(IgniterConfig(), 5, ("CT",))
        two = Igniter(IgniterConfig(), 5, ("CT", "MR"))
    norms = sum(p.numel() for m in one.modules() if isinstance(m, nn.BatchNorm2d) for p in m.parameters())
    sizes = [sum(p.numel() for p in network.parameters()) for network in (one, two)]
    assert norms == sizes[1] - sizes[0]


def test_training_on_one_modality_leaves_the_others_statistics() -> None:
    """Moving statistics move for the modality that was seen, and for no other."""
    norm = ModalityNorm(2, ("CT", "MR"))
    norm(torch.randn(4, 2, 8, 8) + 5.0, "CT")
    states = norm.state_dict()
    assert torch.equal(torch.zeros(2), states["norms.MR.running_mean"])
    assert (states["norms.CT.running_mean"] > 0.3).all()


def test_growing_block_pads_the_identity_on_both_sides() -> None:
    """With kernels of zero a block that doubles its channels returns its input in the middle channels."""
    block = ResidualBlock(2, 4, ("CT",), dropout=0.0)
    nn.init.zeros_(block.first.conv.weight)
    nn.init.zeros_(block.second.conv.weight)
    maps = torch.randn(1, 2, 4, 4)
    grown = block(maps, "CT")
    assert torch.equal(maps, grown[:, 1:3])
    assert 0.0 == grown[:, [0, 3]].abs().sum().item()


@pytest.mark.parametrize("preset", ["tiny", "demo", "cpu"])
def test_narrow_networks_give_logits_of_the_input_size(preset: str) -> None:
    """Every CPU preset's networks map (N, C, H, W) to (N, K, H, W)."""
    numbers = PRESETS[preset]
    size = numbers.transunet.size
    igniter = Igniter(numbers.igniter, 3, ("CT", "MR")).eval()
    transunet = TransUNet(numbers.transunet, 3).eval()
    with torch.inference_mode():
        coarse = igniter(torch.randn(2, 3, *size), "MR")
        fine = transunet(torch.randn(2, numbers.transunet.in_channels, *size))
    assert (2, 3, *size) == tuple(coarse.shape) == tuple(fine.shape)


def test_transunet_has_the_published_number_of_parameters() -> None:
    """R50-ViT-B/16 at 224 x 224 and 9 classes has 105,277,081 parameters."""
    with torch.device("meta"):
        network = TransUNet(TransUNetConfig(size=(224, 224)), 9)
    assert 105_277_081 == sum(p.numel() for p in network.parameters())


def test_transunet_takes_sizes_that_are_not_square() -> None:
    """Rows and columns only have to be multiples of 16."""
    config = TransUNetConfig(
        size=(48, 80), resnet_width=8, resnet_units=(1, 1, 1), resnet_groups=2, hidden=16, mlp=32, layers=1, heads=2,
        decoder=(16, 8, 8, 8, 8),
    )  # fmt: skip
    assert (1, 2, 48, 80) == tuple(TransUNet(config, 2)(torch.randn(1, 1, 48, 80)).shape)
    with pytest.raises(ValueError, match="multiple of 16"):
        TransUNet(TransUNetConfig(size=(50, 64)), 2)


def test_standardised_kernels_have_no_mean_and_unit_variance() -> None:
    """Weight standardisation uses the biased variance of each output channel."""
    conv = StdConv2d(3, 4, 7, bias=False)
    weight = conv.weight.detach().numpy().reshape(4, -1).astype(np.float64)
    expected = (weight - weight.mean(1, keepdims=True)) / np.sqrt(weight.var(1, keepdims=True) + 1e-5)
    np.testing.assert_allclose(expected, conv.standardised_weight().detach().numpy().reshape(4, -1), atol=1e-5)
