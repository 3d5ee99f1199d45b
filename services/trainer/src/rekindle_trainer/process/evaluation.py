"""Predicting volumes and measuring the predictions, on the native grid."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import onnxruntime
import torch
from monai.metrics import compute_hausdorff_distance
from rekindle.vocabulary import Example, Organ, OrganStatus
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.masks import dice, keep_largest_per_class
from rekindle_imaging.preprocessing import prepare, restore_labels, stack_channels
from rekindle_imaging.preprocessing_spec import Preprocessing
from rekindle_imaging.volume import Volume
from rekindle_servicekit.objects import Objects

from rekindle_trainer.process.training.data import class_indices, load_object

#: Images (N, C, H, W) float32 -> logits (N, K, H, W) float32.
Predictor = Callable[[np.ndarray], np.ndarray]
BATCH = 16


class Served(NamedTuple):
    """A model as it is served: what turns images into logits, and what belongs to it."""

    predictor: Predictor
    preprocessing: Preprocessing
    #: Organ ids in class order, background left out.
    organ_ids: tuple[str, ...]
    largest_component: bool


def onnx_predictor(model: bytes, *, threads: int = 1) -> Predictor:
    """ONNX Runtime on the CPU; one thread gives the same bits everywhere with the same processor type."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    return lambda images: np.asarray(session.run(["logits"], {"image": images})[0])


def torch_predictor(network: torch.nn.Module) -> Predictor:
    """A network in eval mode on the CPU."""

    def predict(images: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return network(torch.from_numpy(images)).float().numpy()

    return predict


def predict_classes(volume: Volume, served: Served) -> np.ndarray:
    """Class indices (k, j, i) uint8 of a volume: softmax per slice, back to the native grid, argmax, clean-up."""
    prepared = prepare(volume, served.preprocessing)
    slices = len(prepared.images)
    parts = []
    for first in range(0, slices, BATCH):
        indices = np.arange(first, min(first + BATCH, slices))
        images = stack_channels(prepared.images, indices, served.preprocessing.channels)
        logits = torch.from_numpy(served.predictor(np.ascontiguousarray(images, dtype=np.float32)))
        parts.append(logits.softmax(1).numpy())
    classes = restore_labels(np.concatenate(parts), prepared.grid, prepared.source)
    if served.largest_component:
        classes = keep_largest_per_class(classes, 1 + len(served.organ_ids))
    return classes


def hd95_mm(prediction: np.ndarray, truth: np.ndarray, geometry: Geometry) -> float | None:
    """95th percentile Hausdorff distance in millimetres; None where either mask is empty.

    MONAI's definition: the larger of the two directed percentiles over surface voxels. Both masks are cropped to
    their common bounding box with a margin of one voxel, which changes no surface and saves most of the work.
    """
    if not (prediction.any() and truth.any()):
        return None
    box = _bounding_box(prediction | truth)
    pair = [torch.from_numpy(np.ascontiguousarray(mask[box]))[None, None].float() for mask in (prediction, truth)]
    spacing = geometry.spacing_mm[::-1]  # (k, j, i)
    with warnings.catch_warnings():
        # MONAI calls a helper of its own by an argument that it has deprecated.
        warnings.simplefilter("ignore", FutureWarning)
        value = compute_hausdorff_distance(*pair, include_background=True, percentile=95, spacing=list(spacing))
    return float(value[0, 0])


def _bounding_box(mask: np.ndarray) -> tuple[slice, ...]:
    box = []
    for axis in range(mask.ndim):
        others = tuple(a for a in range(mask.ndim) if a != axis)
        inside = np.flatnonzero(mask.any(axis=others))
        box.append(slice(max(int(inside[0]) - 1, 0), int(inside[-1]) + 2))
    return tuple(box)


def organ_metrics(prediction: np.ndarray, truth: np.ndarray, geometry: Geometry) -> dict[str, float | None]:
    """Dice (None where both are empty), HD95 (None where either is), volume error and volume in millilitres."""
    predicted_ml = float(prediction.sum()) * geometry.voxel_ml
    return {
        "dice": dice(prediction, truth),
        "hd95_mm": hd95_mm(prediction, truth, geometry),
        "volume_error_ml": predicted_ml - float(truth.sum()) * geometry.voxel_ml,
        "predicted_ml": predicted_ml,
    }


def evaluate_case(objects: Objects, example: Example, organs: Sequence[Organ], served: Served) -> dict[str, Any]:
    """CaseMetrics of one labelled volume; organs that were not reviewed are left out.

    An organ that the model has no class for counts as predicted nowhere.
    """
    image = load_object(objects, example.image_digest)
    truth = class_indices(load_object(objects, example.mask_digest).voxels, organs)
    classes = predict_classes(image, served)
    measured = {}
    for index, organ in enumerate(organs, start=1):
        if example.status_of(organ.id) is not OrganStatus.NOT_REVIEWED:
            known = organ.id in served.organ_ids
            predicted = classes == 1 + served.organ_ids.index(organ.id) if known else np.zeros_like(classes, bool)
            measured[organ.id] = organ_metrics(predicted, truth == index, image.geometry)
    return {"image_digest": example.image_digest, "case_id": example.case_id, "organs": measured}
