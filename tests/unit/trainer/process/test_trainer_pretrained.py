"""Published ImageNet weights, on a synthetic file with the published file's keys."""

import io

import numpy as np
import pytest
import torch
from rekindle_trainer.domain.presets import TransUNetConfig
from rekindle_trainer.process.networks.pretrained import IncompatibleWeights, load_npz
from rekindle_trainer.process.networks.transunet import TransUNet
from scipy.ndimage import zoom

WIDTH, HIDDEN, HEADS, MLP, GRID = 8, 16, 2, 32, 6
CONFIG = TransUNetConfig(
    size=(64, 64), resnet_width=WIDTH, resnet_units=(2, 1, 1), resnet_groups=2, hidden=HIDDEN, mlp=MLP, layers=2,
    heads=HEADS, decoder=(16, 8, 8, 8, 8),
)  # fmt: skip


def published_file() -> dict[str, np.ndarray]:
    """Arrays named and shaped as in R50+ViT-B_16.npz, only narrower and shallower."""
    shapes: dict[str, tuple[int, ...]] = {"conv_root/kernel": (7, 7, 3, WIDTH), "embedding/bias": (HIDDEN,)}
    shapes |= {f"gn_root/{p}": (1, 1, 1, WIDTH) for p in ("scale", "bias")}
    c_in = WIDTH
    for block, units in enumerate((2, 1, 1), start=1):
        c_out = WIDTH * 2 ** (block + 1)
        middle = c_out // 4
        for unit in range(1, units + 1):
            name = f"block{block}/unit{unit}"
            shapes[f"{name}/conv1/kernel"] = (1, 1, c_in, middle)
            shapes[f"{name}/conv2/kernel"] = (3, 3, middle, middle)
            shapes[f"{name}/conv3/kernel"] = (1, 1, middle, c_out)
            norms = {"gn1": middle, "gn2": middle, "gn3": c_out}
            if unit == 1:
                shapes[f"{name}/conv_proj/kernel"] = (1, 1, c_in, c_out)
                norms["gn_proj"] = c_out
            shapes |= {f"{name}/{gn}/{p}": (1, 1, 1, c) for gn, c in norms.items() for p in ("scale", "bias")}
            c_in = c_out
    shapes["embedding/kernel"] = (1, 1, c_in, HIDDEN)
    shapes["Transformer/posembed_input/pos_embedding"] = (1, 1 + GRID * GRID, HIDDEN)
    for layer in range(2):
        name, size = f"Transformer/encoderblock_{layer}", HIDDEN // HEADS
        for part in ("query", "key", "value"):
            shapes[f"{name}/MultiHeadDotProductAttention_1/{part}/kernel"] = (HIDDEN, HEADS, size)
            shapes[f"{name}/MultiHeadDotProductAttention_1/{part}/bias"] = (HEADS, size)
        shapes[f"{name}/MultiHeadDotProductAttention_1/out/kernel"] = (HEADS, size, HIDDEN)
        shapes[f"{name}/MultiHeadDotProductAttention_1/out/bias"] = (HIDDEN,)
        shapes[f"{name}/MlpBlock_3/Dense_0/kernel"], shapes[f"{name}/MlpBlock_3/Dense_0/bias"] = (
            (HIDDEN, MLP),
            (MLP,),
        )
        shapes[f"{name}/MlpBlock_3/Dense_1/kernel"], shapes[f"{name}/MlpBlock_3/Dense_1/bias"] = (
            (MLP, HIDDEN),
            (HIDDEN,),
        )
        shapes |= {
            f"{name}/{norm}/{p}": (HIDDEN,) for norm in ("LayerNorm_0", "LayerNorm_2") for p in ("scale", "bias")
        }
    shapes |= {f"Transformer/encoder_norm/{p}": (HIDDEN,) for p in ("scale", "bias")}
    shapes["head/kernel"] = (HIDDEN, 10)
    rng = np.random.default_rng(0)
    return {name: rng.standard_normal(shape, dtype=np.float32) for name, shape in shapes.items()}


def npz(arrays: dict[str, np.ndarray]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def test_every_encoder_tensor_comes_from_the_file_and_the_decoder_stays() -> None:
    """Kernels turn from HWIO to OIHW, dense kernels are transposed, decoder and head keep their values."""
    torch.manual_seed(0)
    network, arrays = TransUNet(CONFIG, 3), published_file()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    load_npz(network, npz(arrays))
    after = {name: value.numpy() for name, value in network.state_dict().items()}
    kept = {name for name in before if np.array_equal(before[name].numpy(), after[name])}
    assert {name for name in before if name.startswith(("bridge.", "decoder.", "head."))} == kept
    conv2 = arrays["block1/unit2/conv2/kernel"]
    assert conv2[0, 2, 3, 1] == after["resnet.stages.0.1.conv2.weight"][1, 3, 0, 2]
    assert np.array_equal(arrays["block2/unit1/gn_proj/bias"].ravel(), after["resnet.stages.1.0.gn_proj.bias"])
    dense = arrays["Transformer/encoderblock_1/MlpBlock_3/Dense_0/kernel"]
    assert np.array_equal(dense.T, after["layers.1.fc1.weight"])


def test_attention_computes_what_the_published_layout_means() -> None:
    """The query of head h is x contracted with kernel[:, h, :] plus bias[h]."""
    network, arrays = TransUNet(CONFIG, 3), published_file()
    load_npz(network, npz(arrays))
    name = "Transformer/encoderblock_0/MultiHeadDotProductAttention_1/query"
    x = np.random.default_rng(1).standard_normal((5, HIDDEN), dtype=np.float32)
    expected = np.einsum("ti,ihd->thd", x, arrays[f"{name}/kernel"]) + arrays[f"{name}/bias"]
    actual = network.layers[0].attention.query(torch.from_numpy(x)).detach().numpy()
    np.testing.assert_allclose(expected.reshape(5, HIDDEN), actual, atol=1e-5)


def test_position_embedding_drops_the_class_token_and_is_resized_like_scipys_zoom() -> None:
    """A 6 x 6 grid becomes 4 x 4 by corner-aligned linear interpolation."""
    network, arrays = TransUNet(CONFIG, 3), published_file()
    load_npz(network, npz(arrays))
    grid = arrays["Transformer/posembed_input/pos_embedding"][0, 1:].reshape(GRID, GRID, HIDDEN)
    expected = zoom(grid, (4 / GRID, 4 / GRID, 1), order=1)
    actual = network.position_embedding.detach().numpy().reshape(4, 4, HIDDEN)
    np.testing.assert_allclose(expected, actual, atol=1e-5)


def test_a_file_that_lacks_a_key_is_refused_by_name() -> None:
    """The message names what is missing."""
    arrays = published_file()
    del arrays["block3/unit1/conv3/kernel"]
    with pytest.raises(IncompatibleWeights, match="block3/unit1/conv3/kernel"):
        load_npz(TransUNet(CONFIG, 3), npz(arrays))


def test_a_file_of_other_sizes_is_refused() -> None:
    """Weights of a wider network do not load."""
    arrays = published_file()
    arrays["conv_root/kernel"] = np.zeros((7, 7, 3, 64), np.float32)
    with pytest.raises(IncompatibleWeights, match="do not fit"):
        load_npz(TransUNet(CONFIG, 3), npz(arrays))


def test_pickled_contents_are_refused() -> None:
    """An array of Python objects is never unpickled."""
    arrays = published_file()
    arrays["conv_root/kernel"] = np.array([{"a": 1}], dtype=object)
    with pytest.raises(IncompatibleWeights, match="allow_pickle"):
        load_npz(TransUNet(CONFIG, 3), npz(arrays))
