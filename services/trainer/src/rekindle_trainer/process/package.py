"""Packages: an ONNX graph and the manifest that says all that is needed to serve it."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from rekindle_imaging.recipe import Preprocessing
from rekindle_servicekit.objects import Objects
from torch import nn

from rekindle_trainer.domain.spec import BadSpec, RunSpec, compact_json
from rekindle_trainer.process.evaluation import Served, onnx_predictor
from rekindle_trainer.process.export import (
    OPSET,
    REFERENCE_BATCH,
    REFERENCE_SEED,
    TOLERANCE,
    export_onnx,
    peak_activation_bytes,
    reference_input,
)

FORMAT = 1
#: Images that an engine is expected to hold at once, in the manifest's memory figure.
ENGINE_BATCH = 16
_SAMPLE = 16


def write_package(
    objects: Objects,
    spec: RunSpec,
    network: nn.Module,
    *,
    modality: str,
    preprocessing: Preprocessing,
    weights: str,
) -> str:
    """Export `network` (images -> logits), store graph and manifest, and return the package's digest.

    The manifest comes last and depends neither on ids nor on clocks: same weights and data, same digest.
    """
    channels, size = preprocessing.channels, (preprocessing.size[0], preprocessing.size[1])
    model = export_onnx(network, channels, size)
    logits = onnx_predictor(model)(reference_input(channels, size))
    activations = peak_activation_bytes(network, channels, size)
    manifest = compact_json(
        {
            "format": FORMAT,
            "network": "igniter" if spec.kind == "igniter" else "transunet",
            "classes": [{"id": organ.id, "label_value": organ.label_value} for organ in spec.organs],
            "modality": modality,
            "preprocessing": preprocessing.to_dict(),
            "opset": OPSET,
            "model_digest": hashlib.sha256(model).hexdigest(),
            "memory_bytes": 2 * len(model) + ENGINE_BATCH * activations,
            "reference": {
                "input_seed": REFERENCE_SEED,
                "batch": REFERENCE_BATCH,
                # Rounded, so that the last bits of another processor do not make another package.
                "logits_sample": [round(float(value), 4) for value in logits.ravel()[:_SAMPLE]],
                # Relative to the largest logit (at least 1), as in the parity check of the export.
                "tolerance": TOLERANCE,
            },
            "lineage": _lineage(spec, weights),
            "postprocessing": {"largest_component": spec.largest_component},
        }
    )
    digest = hashlib.sha256(manifest).hexdigest()
    objects.put(f"packages/{digest}/model.onnx", model)
    objects.put(f"packages/{digest}/manifest.json", manifest)
    return digest


def _lineage(spec: RunSpec, weights: str) -> dict[str, Any]:
    return {
        "snapshot_digest": spec.snapshot_digest(),
        "kind": spec.kind,
        "recipe": spec.recipe,
        "preset": spec.preset,
        "seed": spec.seed,
        "weights_digest": weights,
        **({} if spec.initial_weights is None else {"initial_weights_digest": spec.initial_weights}),
    }


def load_package(objects: Objects, digest: str, *, threads: int = 1) -> Served:
    """A package ready to predict; BadSpec where it is missing or damaged."""
    folder = f"packages/{digest}"
    if not objects.exists(f"{folder}/manifest.json"):
        raise BadSpec("OBJECT_MISSING", f"there is no package {digest}")
    data = objects.get(f"{folder}/manifest.json")
    manifest = json.loads(data)
    model = objects.get(f"{folder}/model.onnx")
    expected = (digest, manifest["model_digest"])
    if (hashlib.sha256(data).hexdigest(), hashlib.sha256(model).hexdigest()) != expected:
        raise BadSpec("DIGEST_MISMATCH", f"package {digest} does not have the digests that it is named by")
    return Served(
        onnx_predictor(model, threads=threads),
        Preprocessing.from_dict(manifest["preprocessing"]),
        tuple(item["id"] for item in manifest["classes"]),
        bool(manifest["postprocessing"]["largest_component"]),
    )
