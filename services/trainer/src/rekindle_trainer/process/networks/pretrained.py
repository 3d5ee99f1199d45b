"""Published ImageNet weights of R50-ViT-B/16 (``R50+ViT-B_16.npz``) into a TransUNet."""

from __future__ import annotations

import io
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F

from rekindle_trainer.process.networks.resnet import Bottleneck
from rekindle_trainer.process.networks.transunet import TransUNet

Arrays = Mapping[str, np.ndarray]


class IncompatibleWeights(Exception):
    """The weights are of another network than the one that they are to start."""


def load_npz(network: TransUNet, data: bytes) -> None:
    """Fill ResNet, embedding and transformer of `network` from the bytes of the published file.

    The decoder and the head, which the file has nothing for, stay as they are. Raises IncompatibleWeights
    where a key is missing or a shape differs; pickled contents are refused.
    """
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
        state = {**_resnet(network, arrays), **_transformer(network, arrays)}
        missing, unexpected = network.load_state_dict(state, strict=False)
    except KeyError as error:
        raise IncompatibleWeights(f"the weights have no {error.args[0]!r}") from None
    except (ValueError, RuntimeError) as error:
        raise IncompatibleWeights(f"the weights do not fit R50-ViT-B/16: {error}") from None
    untouched = ("bridge.", "decoder.", "head.")
    if unexpected or any(not name.startswith(untouched) for name in missing):
        raise IncompatibleWeights("the weights do not cover the network's encoder")


def _tensor(array: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float32))


def _kernel(array: np.ndarray) -> torch.Tensor:
    return _tensor(array.transpose(3, 2, 0, 1))  # HWIO -> OIHW


def _norm(arrays: Arrays, source: str, target: str) -> dict[str, torch.Tensor]:
    return {
        f"{target}.weight": _tensor(arrays[f"{source}/scale"].reshape(-1)),
        f"{target}.bias": _tensor(arrays[f"{source}/bias"].reshape(-1)),
    }


def _resnet(network: TransUNet, arrays: Arrays) -> dict[str, torch.Tensor]:
    state = {"resnet.root_conv.weight": _kernel(arrays["conv_root/kernel"])}
    state |= _norm(arrays, "gn_root", "resnet.root_gn")
    for b, stage in enumerate(network.resnet.stages):
        for u, unit in enumerate(stage.children()):
            assert isinstance(unit, Bottleneck)
            source, target = f"block{b + 1}/unit{u + 1}", f"resnet.stages.{b}.{u}"
            for n in (1, 2, 3):
                state[f"{target}.conv{n}.weight"] = _kernel(arrays[f"{source}/conv{n}/kernel"])
                state |= _norm(arrays, f"{source}/gn{n}", f"{target}.gn{n}")
            if unit.projected:
                state[f"{target}.downsample.weight"] = _kernel(arrays[f"{source}/conv_proj/kernel"])
                state |= _norm(arrays, f"{source}/gn_proj", f"{target}.gn_proj")
    return state


def _dense(arrays: Arrays, source: str, target: str, c_out: int) -> dict[str, torch.Tensor]:
    bias = arrays[f"{source}/bias"].reshape(-1)
    # Attention kernels are stored by head: (hidden, heads, d) for q, k, v and (heads, d, hidden) for out.
    kernel = arrays[f"{source}/kernel"].reshape(-1, c_out)
    return {f"{target}.weight": _tensor(kernel.T), f"{target}.bias": _tensor(bias)}


def _transformer(network: TransUNet, arrays: Arrays) -> dict[str, torch.Tensor]:
    hidden, mlp = network.config.hidden, network.config.mlp
    state = {
        "patch_embedding.weight": _kernel(arrays["embedding/kernel"]),
        "patch_embedding.bias": _tensor(arrays["embedding/bias"].reshape(-1)),
        "position_embedding": _positions(arrays["Transformer/posembed_input/pos_embedding"], network.grid, hidden),
    }
    for n in range(network.config.layers):
        source, target = f"Transformer/encoderblock_{n}", f"layers.{n}"
        for name in ("query", "key", "value", "out"):
            block = f"{source}/MultiHeadDotProductAttention_1/{name}"
            state |= _dense(arrays, block, f"{target}.attention.{name}", hidden)
        state |= _dense(arrays, f"{source}/MlpBlock_3/Dense_0", f"{target}.fc1", mlp)
        state |= _dense(arrays, f"{source}/MlpBlock_3/Dense_1", f"{target}.fc2", hidden)
        state |= _norm(arrays, f"{source}/LayerNorm_0", f"{target}.attention_norm")
        state |= _norm(arrays, f"{source}/LayerNorm_2", f"{target}.mlp_norm")
    return state | _norm(arrays, "Transformer/encoder_norm", "encoder_norm")


def _positions(array: np.ndarray, grid: tuple[int, int], hidden: int) -> torch.Tensor:
    """Position embedding (1, rows * columns, hidden): class token dropped, grid resized where it differs."""
    tokens = _tensor(array).reshape(-1, hidden)
    side = int(np.sqrt(len(tokens)))
    if side * side != len(tokens):
        tokens = tokens[1:]
        side = int(np.sqrt(len(tokens)))
    if side * side != len(tokens):
        raise ValueError(f"{len(array)} position embeddings are no square grid")
    if (side, side) != grid:
        square = tokens.T.reshape(1, hidden, side, side)
        # Corner-aligned, as scipy's zoom of order 1 in the authors' code.
        square = F.interpolate(square, size=grid, mode="bilinear", align_corners=True)
        tokens = square.reshape(hidden, -1).T
    return tokens.unsqueeze(0).contiguous()
