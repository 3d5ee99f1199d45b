"""A trained network as one ONNX file, checked against torch."""

from __future__ import annotations

import copy
import io
import warnings

import numpy as np
import torch
from torch import nn

from rekindle_trainer.process.evaluation import onnx_predictor, torch_predictor
from rekindle_trainer.process.networks.resnet import StdConv2d

OPSET = 18
#: Largest difference between torch and ONNX Runtime, relative to the largest logit (at least 1).
TOLERANCE = 1e-3
REFERENCE_SEED = 20220
REFERENCE_BATCH = 2


class ParityError(Exception):
    """The exported graph does not compute what the network computes."""


def reference_input(channels: int, size: tuple[int, int]) -> np.ndarray:
    """The images (N, C, H, W) that an engine checks a package with."""
    shape = (REFERENCE_BATCH, channels, *size)
    return np.random.default_rng(REFERENCE_SEED).standard_normal(shape, dtype=np.float32)


def export_onnx(network: nn.Module, channels: int, size: tuple[int, int]) -> bytes:
    """ONNX bytes of `network` (images -> logits), the same for the same weights; ParityError."""
    plain = _for_export(network)
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        # The TorchScript exporter is kept on purpose: its files need no further package and are deterministic.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            plain,
            (torch.from_numpy(reference_input(channels, size)),),
            buffer,  # pyright: ignore[reportArgumentType]: this exporter takes files too
            input_names=["image"],
            output_names=["logits"],
            dynamic_axes={"image": {0: "N"}, "logits": {0: "N"}},
            opset_version=OPSET,
            dynamo=False,
        )
    model = buffer.getvalue()
    check_parity(model, network, channels, size)
    return model


def check_parity(model: bytes, network: nn.Module, channels: int, size: tuple[int, int]) -> None:
    """Compare graph and network on the reference input and on another batch size; ParityError."""
    reference = reference_input(channels, size)
    graph, original = onnx_predictor(model), torch_predictor(_on_cpu(network))
    for images in (reference, np.concatenate([reference[:1], reference * 0.5])):
        expected, actual = original(images), graph(images)
        if actual.shape != expected.shape:
            raise ParityError(f"the exported graph gives {actual.shape}, the network {expected.shape}")
        difference = float(np.abs(actual - expected).max())
        if not difference <= TOLERANCE * max(1.0, float(np.abs(expected).max())):
            raise ParityError(f"the exported graph's logits differ by {difference:.2g} from the network's")


def peak_activation_bytes(network: nn.Module, channels: int, size: tuple[int, int]) -> int:
    """Bytes of all layers' outputs for one image: an upper bound of what an engine holds per image."""
    plain, total = _on_cpu(network), 0

    def count(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal total
        if isinstance(output, torch.Tensor):
            total += output.numel() * output.element_size()

    leaves = [module for module in plain.modules() if not list(module.children())]
    handles = [leaf.register_forward_hook(count) for leaf in leaves]
    with torch.inference_mode():
        plain(torch.zeros(1, channels, *size))
    for handle in handles:
        handle.remove()
    return total


def in_layout(network: nn.Module, layout: torch.memory_format) -> nn.Module:
    """`network` itself, with its kernels laid out as said."""
    return network.to(memory_format=layout)  # pyright: ignore[reportCallIssue]: torch's overloads lack it


def _on_cpu(network: nn.Module) -> nn.Module:
    plain = copy.deepcopy(network).to("cpu", torch.float32)
    return in_layout(plain, torch.contiguous_format).eval()


def _for_export(network: nn.Module) -> nn.Module:
    """Standardise kernels once instead of in the graph."""
    plain = _on_cpu(network)
    for module in list(plain.modules()):
        for name, child in module.named_children():
            if isinstance(child, StdConv2d):
                setattr(module, name, _standardised(child))
    return plain


def _standardised(conv: StdConv2d) -> nn.Conv2d:
    plain = nn.Conv2d(
        conv.in_channels, conv.out_channels, conv.kernel_size[0], conv.stride[0], conv.padding[0], bias=False
    )
    plain.weight.data = conv.standardised_weight().detach()
    return plain
