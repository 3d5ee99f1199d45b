"""Metrics on the native grid, export, and packages."""

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from monai.metrics import compute_hausdorff_distance
from rekindle_imaging.geometry import Geometry
from rekindle_servicekit.layout import PackageKeys
from rekindle_servicekit.objects import MemoryObjects
from rekindle_trainer.domain.presets import TINY
from rekindle_trainer.domain.spec import BadSpec, compact_json, parse_spec
from rekindle_trainer.process.evaluation import hd95_mm, onnx_predictor, organ_metrics
from rekindle_trainer.process.export import ParityError, check_parity, export_onnx, reference_input
from rekindle_trainer.process.networks.igniter import Igniter, SingleModality
from rekindle_trainer.process.networks.transunet import TransUNet
from rekindle_trainer.process.package import load_package, write_package
from rekindle_trainer.process.recipes import preprocessing_of
from torch import nn

PutSpec = Callable[..., dict[str, Any]]
GEOMETRY = Geometry(
    size=(20, 24, 16), spacing_mm=(1.0, 2.0, 5.0), origin_mm=(0.0, 0.0, 0.0),
    direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
)  # fmt: skip


def box(k: int) -> np.ndarray:
    mask = np.zeros(GEOMETRY.shape, bool)
    mask[k : k + 6, 5:15, 4:12] = True
    return mask


def test_hd95_of_a_shifted_box_is_the_shift_in_millimetres() -> None:
    """Two slices of 5 mm are 10 mm: more than 5 % of the surface is the box's far face."""
    assert pytest.approx(10.0) == hd95_mm(box(4), box(6), GEOMETRY)


def test_cropping_does_not_change_hd95() -> None:
    """On irregular masks that touch the volume's border it equals MONAI's over the whole volume."""
    rng = np.random.default_rng(0)
    a, b = box(0) & (rng.random(GEOMETRY.shape) > 0.2), box(3) & (rng.random(GEOMETRY.shape) > 0.2)
    pair = [torch.from_numpy(mask)[None, None].float() for mask in (a, b)]
    expected = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=[5.0, 2.0, 1.0])
    assert pytest.approx(float(expected)) == hd95_mm(a, b, GEOMETRY)


def test_metrics_by_hand() -> None:
    """480 voxels of 10 mm3 each, two thirds shared."""
    metrics = organ_metrics(box(4), box(6), GEOMETRY)
    assert pytest.approx(2 / 3) == metrics["dice"]
    assert pytest.approx(4.8) == metrics["predicted_ml"]
    assert pytest.approx(0.0) == metrics["volume_error_ml"]


def test_empty_masks_have_no_distance_and_two_have_no_dice() -> None:
    """Both empty: Dice and HD95 are not defined. One empty: Dice 0, HD95 not defined."""
    empty = np.zeros(GEOMETRY.shape, bool)
    nothing, missed = organ_metrics(empty, empty, GEOMETRY), organ_metrics(empty, box(4), GEOMETRY)
    assert (None, None, 0.0) == (nothing["dice"], nothing["hd95_mm"], nothing["predicted_ml"])
    assert (0.0, None) == (missed["dice"], missed["hd95_mm"])
    assert pytest.approx(-4.8) == missed["volume_error_ml"]


def networks() -> dict[str, tuple[nn.Module, int]]:
    torch.manual_seed(0)
    igniter = Igniter(TINY.igniter, 3, ("CT", "MR"))
    transunet = TransUNet(TINY.transunet, 3)
    for module in (*igniter.modules(), *transunet.modules()):
        if isinstance(module, nn.BatchNorm2d):  # statistics that are not the initial ones
            module.running_mean = torch.randn_like(module.weight) * 0.1
            module.running_var = torch.rand_like(module.weight) + 0.5
    return {
        "CT": (SingleModality(igniter, "CT"), 3),
        "MR": (SingleModality(igniter, "MR"), 3),
        "T": (transunet, 1),
    }


@pytest.mark.parametrize("name", ["CT", "MR", "T"])
def test_exported_graphs_compute_what_torch_computes_for_any_batch(name: str) -> None:
    """Five images through ONNX Runtime give the network's logits; input and output are named as agreed."""
    network, channels = networks()[name]
    model = export_onnx(network, channels, (64, 64))
    images = np.random.default_rng(4).standard_normal((5, channels, 64, 64), dtype=np.float32)
    with torch.inference_mode():
        expected = network.eval()(torch.from_numpy(images)).numpy()
    np.testing.assert_allclose(expected, onnx_predictor(model)(images), atol=1e-4 * np.abs(expected).max())
    graph = onnx.load_from_string(model)
    onnx.checker.check_model(graph)
    assert (["image"], ["logits"]) == (
        [i.name for i in graph.graph.input],
        [o.name for o in graph.graph.output],
    )
    assert 18 == graph.opset_import[0].version


def test_the_two_modalities_give_different_graphs() -> None:
    """Norms of their own make the CT graph answer otherwise than the MR graph."""
    images = reference_input(3, (64, 64))
    ct, mr = (onnx_predictor(export_onnx(networks()[m][0], 3, (64, 64)))(images) for m in ("CT", "MR"))
    assert np.abs(ct - mr).max() > 1e-2


def test_the_same_weights_give_the_same_bytes() -> None:
    """Two exports of equal networks are equal."""
    first, second = (export_onnx(networks()["T"][0], 1, (64, 64)) for _ in range(2))
    assert first == second


def test_a_graph_of_other_weights_fails_the_parity_check() -> None:
    """What is exported must be what was trained."""
    network, _ = networks()["T"]
    model = export_onnx(network, 1, (64, 64))
    assert isinstance(network, TransUNet)
    with torch.no_grad():
        network.head.bias += 0.1
    with pytest.raises(ParityError, match=r"differ by 0\.1"):
        check_parity(model, network, 1, (64, 64))


@pytest.mark.parametrize(
    ("name", "data", "reason"),
    [("model", b"not the graph", "DIGEST_MISMATCH"), ("manifest", b"{}", "DIGEST_MISMATCH"), ("none", b"", "")],
)
def test_a_package_with_other_bytes_is_refused(put_spec: PutSpec, name: str, data: bytes, reason: str) -> None:
    """The digests of manifest and graph are checked before they are used; the whole package loads."""
    objects = MemoryObjects()
    spec = parse_spec(compact_json(put_spec(objects, "run-1", kind="sustainer")))
    network = TransUNet(TINY.transunet, spec.classes)
    preprocessing = preprocessing_of(TINY, "sustainer", "CT")
    digest = write_package(objects, spec, network, modality="CT", preprocessing=preprocessing, weights="0" * 64)
    if name == "none":
        assert ("liver", "spleen") == load_package(objects, digest).organ_ids
        return
    key = getattr(PackageKeys(digest), name)
    objects.delete(key)
    objects.put(key, data)
    with pytest.raises(BadSpec) as caught:
        load_package(objects, digest)
    assert reason == caught.value.reason
