"""Synthetic labelled volumes in an object store, small enough to train on within seconds, and runs over them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
from rekindle_imaging.canonical import digest, encode
from rekindle_imaging.geometry import Geometry
from rekindle_imaging.volume import Volume
from rekindle_servicekit.objects import Objects

GEOMETRY = Geometry(
    size=(32, 32, 10),
    spacing_mm=(10.0, 10.0, 12.0),
    origin_mm=(0.0, 0.0, 0.0),
    direction=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
)


def boxes(seed: int) -> tuple[Volume, Volume]:
    """A body of 0 HU in air with a "liver" of 120 HU and a "spleen" of 200 HU, and their mask (1 and 2)."""
    rng = np.random.default_rng(seed)
    image = np.full(GEOMETRY.shape, -1000.0)
    mask = np.zeros(GEOMETRY.shape, np.uint8)
    image[:, 4:28, 3:29] = 0.0
    shift = int(rng.integers(0, 3))
    mask[2:8, 8 + shift : 20 + shift, 5:15] = 1
    mask[3:7, 12 + shift : 20 + shift, 20:26] = 2
    image[mask == 1], image[mask == 2] = 120.0, 200.0
    image += rng.normal(0, 10, image.shape)
    return Volume(image.round().astype(np.int16), GEOMETRY), Volume(mask, GEOMETRY)


def add_example(objects: Objects, seed: int, *, source: str, modality: str = "CT", **statuses: str) -> dict[str, Any]:
    """Store a synthetic volume and return its example."""
    image, mask = boxes(seed)
    digests = []
    for volume, kind in ((image, "image"), (mask, "mask")):
        data = encode(volume, kind)
        digests.append(digest(data))
        objects.put(f"canonical/{digests[-1]}", data)
    return {
        "case_id": f"case-{seed}", "source": source, "modality": modality, "image_digest": digests[0],
        "mask_digest": digests[1], "organ_statuses": {"liver": "accepted", "spleen": "edited", **statuses},
    }  # fmt: skip


def put_spec(objects: Objects, run_id: str, **changes: Any) -> dict[str, Any]:
    """Store a spec of two seed volumes per modality, two target cases and one held-out case, and return it."""
    seeds = [add_example(objects, n, source="seed") for n in (1, 2)]
    seeds += [add_example(objects, n, source="seed", modality="MR") for n in (3, 4)]
    targets = [add_example(objects, n, source="target") for n in (5, 6)]
    spec = {
        "run_id": run_id, "project_id": "p", "kind": "igniter", "preset": "tiny", "recipe": "default", "seed": 7,
        "modality": "CT", "organs": [{"id": "liver", "label_value": 1}, {"id": "spleen", "label_value": 2}],
        "training": seeds, "heldout": [add_example(objects, 8, source="target")],
        "initial_weights": None, "current_package": None,
    } | changes  # fmt: skip
    if spec["kind"] == "sustainer" and "training" not in changes:
        spec["training"] = seeds + targets
    objects.put(f"runs/{run_id}/spec.json", json.dumps(spec).encode())
    return spec
