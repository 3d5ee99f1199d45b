"""A phantom abdomen, and a small package that segments it exactly, by thresholds."""

from __future__ import annotations

import hashlib
import json
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import SimpleITK as sitk
from onnx import TensorProto, helper, numpy_helper
from rekindle.api.common.v1 import common_pb2 as common

SHAPE = (12, 32, 32)
SPACING = (4.0, 4.0, 5.0)
ORGANS = [common.Organ(id="liver", label_value=6), common.Organ(id="spleen", label_value=1)]
PREPROCESSING = {
    "orientation": "LPS",
    "spacing_mm": [4.0, 4.0],
    "slice_spacing_mm": None,
    "size": [32, 32],
    "crop": "none",
    "window": {"kind": "fixed", "low": -200.0, "high": 250.0},
    "normalization": "zscore",
    "channels": 3,
}


@dataclass
class Phantom:
    """Air at -1000, a body at 0, a liver at 100 and a spleen at 200 HU; the organs' voxels are known."""

    image: np.ndarray = field(default_factory=lambda: np.full(SHAPE, -1000, np.int16))
    mask: np.ndarray = field(default_factory=lambda: np.zeros(SHAPE, np.uint8))

    def __post_init__(self) -> None:
        self.image[:, 4:28, 3:29] = 0
        for box, hu, value in [
            (np.s_[2:10, 8:20, 6:16], 100, 6),
            (np.s_[3:8, 12:20, 20:27], 200, 1),
        ]:
            self.image[box] = hu
            self.mask[box] = value

    def thresholds(self) -> tuple[float, float]:
        """Between body and liver, and between liver and spleen, on the scale that a network sees."""
        seen = np.clip(self.image, -200, 250).astype(np.float64)
        low, high = ((hu - seen.mean()) / seen.std() for hu in (50.0, 150.0))
        return float(low), float(high)

    def file(self, folder: Path, what: str = "image", *, voxels: np.ndarray | None = None, **changes: Any) -> Path:
        """A NIfTI file of the image or the mask; `changes`: spacing, origin."""
        array = voxels if voxels is not None else getattr(self, what)
        picture = sitk.GetImageFromArray(array)
        picture.SetSpacing(changes.get("spacing", SPACING))
        picture.SetOrigin(changes.get("origin", (-60.0, -50.0, 100.0)))
        path = folder / f"{uuid.uuid4().hex}.nii.gz"
        sitk.WriteImage(picture, str(path))
        return path


def threshold_weights(thresholds: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A 1 x 1 convolution (K, C, 1, 1) and bias (K,): background, first organ above low, second above high."""
    low, high = thresholds
    weight = np.zeros((3, 3, 1, 1), np.float32)
    weight[1, 1], weight[2, 1] = 10.0, 20.0
    return weight, np.asarray([0.0, -10 * low, -10 * low - 10 * high], np.float32)


def threshold_onnx(thresholds: tuple[float, float]) -> onnx.ModelProto:
    """The graph of `threshold_weights`."""
    weight, bias = threshold_weights(thresholds)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight", "bias"], ["logits"])],
        "threshold",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def manifest_for(model: bytes, thresholds: tuple[float, float], **changes: Any) -> bytes:
    """A manifest whose reference is computed here with numpy; `changes` replace top-level keys."""
    images = np.random.default_rng(7).standard_normal((2, 3, 32, 32), dtype=np.float32)
    weight, bias = threshold_weights(thresholds)
    logits = np.einsum("kc,nchw->nkhw", weight[:, :, 0, 0], images) + bias[None, :, None, None]
    fields = {
        "format": 1,
        "network": "external",
        "classes": [{"id": organ.id, "label_value": organ.label_value} for organ in ORGANS],
        "modality": "CT",
        "preprocessing": PREPROCESSING,
        "opset": 18,
        "model_digest": hashlib.sha256(model).hexdigest(),
        "memory_bytes": 1_000_000,
        "reference": {
            "input_seed": 7,
            "batch": 2,
            "logits_sample": [float(x) for x in logits.ravel()[:16]],
            "tolerance": 1e-3,
        },
        "lineage": {"weights_digest": "ab" * 32, "snapshot_digest": "cd" * 32},
        "postprocessing": {"largest_component": True},
        **changes,
    }
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()
