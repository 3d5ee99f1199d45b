"""From an image to a mask: the one way, for stored volumes and for streamed ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from rekindle.errors import InvalidInput
from rekindle.vocabulary import OrganQuality
from rekindle_imaging.errors import VolumeError
from rekindle_imaging.masks import keep_largest_per_class
from rekindle_imaging.package import Manifest
from rekindle_imaging.preprocessing import Prepared, prepare, restore_labels, stack_channels
from rekindle_imaging.quality import organ_quality
from rekindle_imaging.uncertainty import slice_uncertainties
from rekindle_imaging.volume import Volume
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.domain.slices import ALL_ORGANS, SliceRank, ranked
from rekindle_inference.ports import Engine, Observation, Package, Stage
from rekindle_inference.usecases.gate import Turn

#: Slices done, slices in all; of the model's grid.
Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Segmentation:
    #: Label values uint8 (k, j, i) on the image's grid.
    mask: Volume
    quality: tuple[OrganQuality, ...]
    #: By organ id, and for all of them: where the mask is expected to be wrong.
    slice_ranks: dict[str, tuple[SliceRank, ...]]


def segment(
    image: Volume,
    package: Package,
    engine: Engine,
    turn: Turn,
    cancellation: Cancellation,
    on_progress: Progress,
    observed: Observation,
) -> Segmentation:
    """Predict a whole volume with one package, waiting for its turn before each slice batch.

    Prepared as the manifest says, softmax per slice, probabilities interpolated back to the native grid, then
    argmax and clean-up. InvalidInput (of the volume or the model), Cancelled, DeadlineExceeded.
    """
    manifest = package.manifest
    try:
        with observed.stage(Stage.PREPROCESS):
            prepared = prepare(image, manifest.preprocessing)
        with engine.hold(package):
            probabilities = _probabilities(prepared, package, engine, turn, cancellation, on_progress, observed)
        with observed.stage(Stage.POSTPROCESS):
            return _finished(probabilities, prepared, manifest, cancellation)
    except VolumeError as error:
        raise InvalidInput(error.message, reason=error.reason) from error


def _finished(
    probabilities: NDArray[np.float32], prepared: Prepared, manifest: Manifest, cancellation: Cancellation
) -> Segmentation:
    """Back on the native grid, cleaned up, with what is said of it."""
    classes = restore_labels(probabilities, prepared.grid, prepared.source)
    cancellation.raise_if_set()
    if manifest.keeps_largest_component:
        classes = keep_largest_per_class(classes, manifest.n_classes)
    cancellation.raise_if_set()
    quality = _quality(probabilities, classes, prepared, manifest)
    ranks = _slice_ranks(probabilities, classes, prepared, manifest)
    mask = Volume(_label_values(manifest)[classes], prepared.source)
    return Segmentation(mask=mask, quality=quality, slice_ranks=ranks)


def _probabilities(
    prepared: Prepared,
    package: Package,
    engine: Engine,
    turn: Turn,
    cancellation: Cancellation,
    on_progress: Progress,
    observed: Observation,
) -> NDArray[np.float32]:
    """Softmax (D, K, H, W) on the model grid."""
    manifest, depth = package.manifest, len(prepared.images)
    _, rows, columns = manifest.input_shape
    result = np.empty((depth, manifest.n_classes, rows, columns), dtype=np.float32)
    on_progress(0, depth)
    for first in range(0, depth, engine.batch_size):
        turn.wait(cancellation)
        cancellation.raise_if_set()
        indices = np.arange(first, min(first + engine.batch_size, depth))
        images = stack_channels(prepared.images, indices, manifest.preprocessing.channels)
        with observed.stage(Stage.MODEL):
            logits = engine.predict(package, images, cancellation)
        if not np.isfinite(logits).all():
            raise InvalidInput(f"package {package.digest} gives logits that are not finite", reason="MODEL_FAILED")
        result[indices] = _softmax(logits)
        on_progress(int(indices[-1]) + 1, depth)
    return result


def _softmax(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    """Over the classes of (N, K, H, W)."""
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def _label_values(manifest: Manifest) -> NDArray[np.uint8]:
    """Class index -> label value."""
    return np.asarray([0, *(organ.label_value for organ in manifest.organs)], dtype=np.uint8)


def _slice_ranks(
    probabilities: NDArray[np.float32], classes: NDArray[np.uint8], prepared: Prepared, manifest: Manifest
) -> dict[str, tuple[SliceRank, ...]]:
    names = [ALL_ORGANS, *(organ.id for organ in manifest.organs)]
    uncertainties = slice_uncertainties(probabilities, prepared.grid, classes, prepared.source)
    return {
        name: ranked(organ.voxels_wrong.tolist(), organ.uncertainty.tolist())
        for name, organ in zip(names, uncertainties, strict=True)
    }


def _quality(
    probabilities: NDArray[np.float32], classes: NDArray[np.uint8], prepared: Prepared, manifest: Manifest
) -> tuple[OrganQuality, ...]:
    qualities: list[OrganQuality] = []
    for index, organ in enumerate(manifest.organs, start=1):
        found = organ_quality(probabilities, classes, prepared.source, index)
        qualities.append(
            OrganQuality(
                organ_id=organ.id,
                soft_dice_confidence=found.soft_dice_confidence if found.slices else None,
                predicted_ml=found.predicted_ml,
                boundary_length_mm=found.boundary_length_mm,
                components=found.components,
                slices=found.slices,
            )
        )
    return tuple(qualities)
