"""The manifest of a model package, for those who write one and those who serve it.

A package is an ONNX graph and this manifest: all that must be known to serve the graph. A manifest from elsewhere is
foreign until `parse_manifest` has read it. Needs the extra `package`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, cast

from rekindle.errors import InvalidInput
from rekindle.vocabulary import Modality, Organ, is_sha256

from rekindle_imaging.errors import VolumeError
from rekindle_imaging.preprocessing_spec import Preprocessing

FORMAT = 1
MAX_MANIFEST_BYTES = 1024 * 1024
#: A reference batch must not be a way to fill the memory.
MAX_REFERENCE_VALUES = 64 * 1024 * 1024
#: Organ ids that are read: packages and masks that exist may begin one with a digit, which new ones may not.
READABLE_ORGAN_ID = re.compile(r"[a-z0-9_]{1,64}")
_REQUIRED = {
    "format",
    "network",
    "classes",
    "modality",
    "preprocessing",
    "opset",
    "model_digest",
    "memory_bytes",
    "reference",
    "lineage",
    "postprocessing",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A batch made from a seed, and the beginning of what the graph must answer to it."""

    input_seed: int
    batch: int
    #: First values of the flattened logits.
    logits_sample: tuple[float, ...]
    #: Largest difference, relative to the largest logit (at least 1).
    tolerance: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """Where a package's weights come from; empty where the package does not say."""

    weights_digest: str = ""
    #: Digest of the snapshot of labels that it learnt from.
    snapshot_digest: str = ""
    #: Digest of the weights that training began with; empty where it began with none.
    initial_weights_digest: str = ""
    #: Kind, recipe, preset and seed of the training run, for people: written, never read back.
    kind: str = ""
    recipe: str = ""
    preset: str = ""
    seed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What a package says of itself."""

    network: str
    #: Organs in class order; class 0 is background and not listed.
    organs: tuple[Organ, ...]
    modality: Modality
    preprocessing: Preprocessing
    opset: int
    #: SHA-256 of the graph.
    model_digest: str
    #: Bytes that an engine needs to hold the graph ready.
    memory_bytes: int
    reference: Reference
    lineage: Lineage
    keeps_largest_component: bool

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        rows, columns = self.preprocessing.size
        return (self.preprocessing.channels, rows, columns)

    @property
    def n_classes(self) -> int:
        """Background and organs."""
        return 1 + len(self.organs)

    def to_json(self) -> bytes:
        """The manifest as it is stored: sorted keys, no spaces, so that equal manifests have equal digests."""
        lineage = asdict(self.lineage)
        if not self.lineage.initial_weights_digest:
            del lineage["initial_weights_digest"]
        content = {
            "format": FORMAT,
            "network": self.network,
            "classes": [{"id": organ.id, "label_value": organ.label_value} for organ in self.organs],
            "modality": self.modality,
            "preprocessing": self.preprocessing.to_dict(),
            "opset": self.opset,
            "model_digest": self.model_digest,
            "memory_bytes": self.memory_bytes,
            "reference": asdict(self.reference),
            "lineage": lineage,
            "postprocessing": {"largest_component": self.keeps_largest_component},
        }
        return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def needed_bytes(manifest: Manifest, model_bytes: int) -> int:
    """Memory to reckon with for a loaded model: what the manifest says, which is foreign, but no less than its file
    and the weights read from it take.
    """
    return max(manifest.memory_bytes, 2 * model_bytes)


def parse_manifest(data: bytes) -> Manifest:
    """The manifest in `data` (JSON, UTF-8). InvalidInput (BAD_MANIFEST) says which part is wrong."""
    if len(data) > MAX_MANIFEST_BYTES:
        raise _bad(f"it is larger than {MAX_MANIFEST_BYTES} bytes")
    try:
        fields: Any = json.loads(data)
    except (ValueError, RecursionError):
        raise _bad("it is not JSON in UTF-8") from None
    known = _object(fields, "manifest", required=_REQUIRED)
    if known["format"] != FORMAT:
        raise _bad(f"its format is not {FORMAT}: export the package again with this release")
    manifest = _build(known)
    c, h, w = manifest.input_shape
    if manifest.reference.batch * c * h * w > MAX_REFERENCE_VALUES:
        raise _bad("its reference batch is too large")
    return manifest


def _build(known: Mapping[str, Any]) -> Manifest:
    postprocessing = _object(known["postprocessing"], "postprocessing", required={"largest_component"})
    return Manifest(
        network=_text(known["network"], "network"),
        organs=_organs(known["classes"]),
        modality=_modality(known["modality"]),
        preprocessing=_preprocessing(known["preprocessing"]),
        opset=_whole(known["opset"], "opset", low=7, high=1000),
        model_digest=_sha256(known["model_digest"], "model_digest"),
        memory_bytes=_whole(known["memory_bytes"], "memory_bytes", low=0, high=2**50),
        reference=_reference(known["reference"]),
        lineage=_lineage(_object(known["lineage"], "lineage")),
        keeps_largest_component=_flag(postprocessing["largest_component"], "largest_component"),
    )


def _lineage(known: Mapping[str, Any]) -> Lineage:
    """The digests; the rest is for people and may be anything in a foreign manifest."""

    def digest(name: str) -> str:
        return _text(known.get(name, ""), f"lineage.{name}")

    return Lineage(
        weights_digest=digest("weights_digest"),
        snapshot_digest=digest("snapshot_digest"),
        initial_weights_digest=digest("initial_weights_digest"),
    )


def _organs(value: Any) -> tuple[Organ, ...]:
    if not isinstance(value, list) or not 1 <= len(cast("list[Any]", value)) <= 255:
        raise _bad("classes must list 1 to 255 organs")
    organs: list[Organ] = []
    for item in cast("list[Any]", value):
        known = _object(item, "classes", required={"id", "label_value"})
        organ_id = _text(known["id"], "classes.id")
        if READABLE_ORGAN_ID.fullmatch(organ_id) is None:
            raise _bad("a class id has other characters than a-z, 0-9 and _, or more than 64")
        label_value = _whole(known["label_value"], "classes.label_value", low=1, high=255)
        organs.append(Organ(id=organ_id, label_value=label_value))
    if len({o.id for o in organs}) < len(organs) or len({o.label_value for o in organs}) < len(organs):
        raise _bad("two classes share an id or a label value")
    return tuple(organs)


def _modality(value: Any) -> Modality:
    if value not in list(Modality):
        raise _bad("modality must be CT or MR")
    return Modality(value)


def _preprocessing(value: Any) -> Preprocessing:
    try:
        return Preprocessing.from_dict(_object(value, "preprocessing"))
    except VolumeError as error:
        raise _bad(f"preprocessing: {error.message}") from None


def _reference(value: Any) -> Reference:
    known = _object(value, "reference", required={"input_seed", "batch", "logits_sample", "tolerance"})
    sample: Any = known["logits_sample"]
    if not isinstance(sample, list) or not 1 <= len(cast("list[Any]", sample)) <= 4096:
        raise _bad("reference.logits_sample must list 1 to 4096 numbers")
    numbers = tuple(_number(x, "reference.logits_sample") for x in cast("list[Any]", sample))
    tolerance = _number(known["tolerance"], "reference.tolerance")
    if not 0 < tolerance <= 0.1:
        raise _bad("reference.tolerance must be above 0 and at most 0.1")
    return Reference(
        input_seed=_whole(known["input_seed"], "reference.input_seed", low=0, high=2**63 - 1),
        batch=_whole(known["batch"], "reference.batch", low=1, high=64),
        logits_sample=numbers,
        tolerance=tolerance,
    )


def _object(value: Any, name: str, required: set[str] | None = None) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise _bad(f"{name} must be an object")
    known = cast("dict[str, Any]", value)
    if required is not None and set(known) != required:
        unknown, missing = sorted(set(known) - required), sorted(required - set(known))
        raise _bad(f"{name} lacks {missing} and has unknown keys {[k[:40] for k in unknown[:8]]}")
    return known


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str) or len(value) > 256:
        raise _bad(f"{name} must be text of at most 256 characters")
    return value


def _sha256(value: Any, name: str) -> str:
    text = _text(value, name)
    if not is_sha256(text):
        raise _bad(f"{name} must be a SHA-256 in lower-case hex")
    return text


def _flag(value: Any, name: str) -> bool:
    if not isinstance(value, bool):
        raise _bad(f"{name} must be true or false")
    return value


def _whole(value: Any, name: str, *, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise _bad(f"{name} must be a whole number from {low} to {high}")
    return value


def _number(value: Any, name: str) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise _bad(f"{name} must be a finite number")
    return float(value)


def _bad(what: str) -> InvalidInput:
    return InvalidInput(f"the package's manifest cannot be used: {what}", reason="BAD_MANIFEST")
