"""Packages: an ONNX graph and the manifest that says all that is needed to serve it."""

from __future__ import annotations

import hashlib

from rekindle.errors import InvalidInput
from rekindle.vocabulary import Modality, RunKind
from rekindle_imaging.package import Lineage, Manifest, Reference, parse_manifest
from rekindle_imaging.preprocessing_spec import Preprocessing
from rekindle_servicekit.layout import PackageKeys
from rekindle_servicekit.objects import Objects
from torch import nn

from rekindle_trainer.domain.spec import BadSpec, RunSpec
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
    manifest = Manifest(
        network="igniter" if spec.kind is RunKind.IGNITER else "transunet",
        organs=spec.organs,
        modality=Modality(modality),
        preprocessing=preprocessing,
        opset=OPSET,
        model_digest=hashlib.sha256(model).hexdigest(),
        memory_bytes=2 * len(model) + ENGINE_BATCH * activations,
        reference=Reference(
            input_seed=REFERENCE_SEED,
            batch=REFERENCE_BATCH,
            # Rounded, so that the last bits of another processor do not make another package.
            logits_sample=tuple(round(float(value), 4) for value in logits.ravel()[:_SAMPLE]),
            # Relative to the largest logit (at least 1), as in the parity check of the export.
            tolerance=TOLERANCE,
        ),
        lineage=Lineage(
            snapshot_digest=spec.snapshot_digest(),
            kind=spec.kind,
            recipe=spec.recipe,
            preset=spec.preset,
            seed=spec.seed,
            weights_digest=weights,
            initial_weights_digest=spec.initial_weights or "",
        ),
        keeps_largest_component=spec.largest_component,
    ).to_json()
    digest = hashlib.sha256(manifest).hexdigest()
    objects.put(PackageKeys(digest).model, model)
    objects.put(PackageKeys(digest).manifest, manifest)
    return digest


def load_package(objects: Objects, digest: str, *, threads: int = 1) -> Served:
    """A package ready to predict; BadSpec where it is missing or damaged."""
    keys = PackageKeys(digest)
    if not objects.exists(keys.manifest):
        raise BadSpec("OBJECT_MISSING", f"there is no package {digest}")
    data, model = objects.get(keys.manifest), objects.get(keys.model)
    _require_digest(data, digest, digest)
    try:
        manifest = parse_manifest(data)
    except InvalidInput as error:
        raise BadSpec(error.reason, error.message) from None
    _require_digest(model, manifest.model_digest, digest)
    return Served(
        onnx_predictor(model, threads=threads),
        manifest.preprocessing,
        tuple(organ.id for organ in manifest.organs),
        manifest.keeps_largest_component,
    )


def _require_digest(data: bytes, expected: str, package: str) -> None:
    if hashlib.sha256(data).hexdigest() != expected:
        raise BadSpec("DIGEST_MISMATCH", f"package {package} does not have the digests that it is named by")
