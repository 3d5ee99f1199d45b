"""Training cases in memory: canonical objects by digest, prepared as for serving, as slices."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from rekindle.vocabulary import Example, Organ, OrganStatus
from rekindle_imaging.canonical import decode
from rekindle_imaging.preprocessing import prepare, prepare_mask
from rekindle_imaging.preprocessing_spec import Preprocessing
from rekindle_imaging.volume import Volume
from rekindle_servicekit import layout
from rekindle_servicekit.objects import Objects

from rekindle_trainer.domain.spec import BadSpec


@dataclass(frozen=True, eq=False)
class TrainingCase:
    """Prepared slices of one labelled volume."""

    image_digest: str
    source: str
    modality: str
    #: (D, H, W) float16, normalised
    images: np.ndarray
    #: (D, H, W) uint8 class indices
    labels: np.ndarray
    #: (K,) whether a class was reviewed; False = where it is in this volume is unknown. Background is True.
    reviewed: np.ndarray


def load_object(objects: Objects, digest: str) -> Volume:
    """The canonical volume with this digest; BadSpec where it is missing or damaged."""
    key = layout.canonical(digest)
    if not objects.exists(key):
        # Messages end up in logs, which keep what is erased elsewhere: no digest of a patient's pixels in them.
        raise BadSpec("OBJECT_MISSING", "a volume of the snapshot is not stored: `rekindle verify` names it")
    data = objects.get(key)
    if hashlib.sha256(data).hexdigest() != digest:
        raise BadSpec("DIGEST_MISMATCH", "a volume of the snapshot is damaged: `rekindle verify --deep` names it")
    return decode(data)


def class_indices(mask: np.ndarray, organs: Sequence[Organ]) -> np.ndarray:
    """Label values -> class indices (0 background, c the c-th organ), uint8; BadSpec for an unknown value."""
    table = np.full(256, 255, np.uint8)
    table[0] = 0
    for index, organ in enumerate(organs, start=1):
        table[organ.label_value] = index
    classes = table[mask]
    if classes.size and classes.max() == 255:
        values = sorted(int(v) for v in np.unique(mask[classes == 255]))
        raise BadSpec("UNKNOWN_LABEL_VALUES", f"a mask holds label values {values} that no organ has")
    return classes


def load_case(
    objects: Objects, example: Example, organs: Sequence[Organ], preprocessing: Preprocessing
) -> TrainingCase:
    """Seed cases are cropped in z to their organs; a target's label never influences its crop."""
    image = load_object(objects, example.image_digest)
    mask = load_object(objects, example.mask_digest)
    if not mask.geometry.matches(image.geometry):
        raise BadSpec("GEOMETRY_MISMATCH", "a mask of the snapshot does not have its image's geometry")
    crop = mask if example.source == "seed" and mask.voxels.any() else None
    prepared = prepare(image, preprocessing, organ_mask=crop)
    return TrainingCase(
        image_digest=example.image_digest,
        source=example.source,
        modality=example.modality,
        images=prepared.images.astype(np.float16),
        labels=class_indices(prepare_mask(mask, prepared.grid), organs),
        reviewed=np.array([True, *(example.status_of(organ.id) is not OrganStatus.NOT_REVIEWED for organ in organs)]),
    )


def load_cases(
    objects: Objects,
    examples: Sequence[Example],
    organs: Sequence[Organ],
    preprocessing_of: Callable[[str], Preprocessing],
    check: Callable[[], None] = lambda: None,
) -> list[TrainingCase]:
    """`preprocessing_of` maps a modality to its preprocessing; `check` is called between cases and may raise."""
    cases = []
    for example in examples:
        check()
        cases.append(load_case(objects, example, organs, preprocessing_of(example.modality)))
    return cases
