"""RunSpec: what one training run is to do, read from the object store and checked before anything starts."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import Any

STATUSES = frozenset({"edited", "accepted", "absent", "out_of_view", "not_reviewed"})
_DIGEST = re.compile(r"[0-9a-f]{64}")


class BadSpec(Exception):
    """The run cannot be done as specified; `reason` is UPPER_SNAKE, the message says what to change."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, kw_only=True)
class Organ:
    """A class to segment; `label_value` is its value in canonical masks."""

    id: str
    label_value: int


@dataclass(frozen=True, kw_only=True)
class Example:
    """One labelled volume of the snapshot, by content."""

    case_id: str
    #: ``seed`` or ``target``
    source: str
    modality: str
    image_digest: str
    mask_digest: str
    #: Status per organ id; an organ that is missing here counts as accepted.
    organ_statuses: dict[str, str]

    def reviewed(self, organ_id: str) -> bool:
        return self.organ_statuses.get(organ_id, "accepted") != "not_reviewed"


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """Examples are sorted by (source, image digest), so that no result depends on ids of cases."""

    run_id: str
    project_id: str
    #: ``igniter`` or ``sustainer``
    kind: str
    preset: str
    recipe: str
    seed: int
    #: The target set's modality.
    modality: str
    organs: tuple[Organ, ...]
    training: tuple[Example, ...]
    heldout: tuple[Example, ...]
    initial_weights: str | None
    current_package: str | None
    #: Packages keep the largest component per organ, or all of them.
    largest_component: bool = True

    @property
    def classes(self) -> int:
        return 1 + len(self.organs)

    @property
    def modalities(self) -> tuple[str, ...]:
        return tuple(sorted({example.modality for example in self.training}))

    def snapshot_digest(self) -> str:
        """SHA-256 of the examples' sorted compact JSON without case ids."""
        lists = {"training": _plain(self.training), "heldout": _plain(self.heldout)}
        return hashlib.sha256(compact_json(lists)).hexdigest()


def compact_json(value: Any) -> bytes:
    """Sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def parse_spec(data: bytes) -> RunSpec:
    """Raise BadSpec where `data` is not a complete and consistent spec."""
    try:
        raw: dict[str, Any] = json.loads(data)
        raw["organs"] = tuple(Organ(**organ) for organ in raw["organs"])
        raw["training"] = _examples(raw["training"])
        raw["heldout"] = _examples(raw["heldout"])
        spec = RunSpec(**raw)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadSpec("BAD_SPEC", f"the run's spec cannot be read: {type(error).__name__}: {error}") from None
    _check(spec)
    return spec


def _examples(raw: list[dict[str, Any]]) -> tuple[Example, ...]:
    examples = [Example(**item) for item in raw]
    return tuple(sorted(examples, key=lambda e: (e.source, e.image_digest, e.mask_digest)))


def _plain(examples: tuple[Example, ...]) -> list[dict[str, Any]]:
    return [{key: value for key, value in vars(example).items() if key != "case_id"} for example in examples]


def _check(spec: RunSpec) -> None:
    if spec.kind not in ("igniter", "sustainer"):
        raise BadSpec("BAD_SPEC", f"kind is {spec.kind!r}: use 'igniter' or 'sustainer'")
    if type(spec.seed) is not int or spec.seed < 0:
        raise BadSpec("BAD_SPEC", "seed must be an integer that is not negative")
    values = [organ.label_value for organ in spec.organs]
    if not values or len(set(values)) != len(values) or any(not 1 <= value <= 255 for value in values):
        raise BadSpec("BAD_SPEC", f"label values {values} must be distinct, 1 to 255, and at least one")
    for digest in (spec.initial_weights, spec.current_package):
        if digest is not None and not _DIGEST.fullmatch(digest):
            raise BadSpec("BAD_SPEC", "initial_weights and current_package are SHA-256 digests or null")
    if not spec.training:
        raise BadSpec("NO_TRAINING_DATA", "the snapshot has no training examples: label cases first")
    for example in (*spec.training, *spec.heldout):
        _check_example(example, {organ.id for organ in spec.organs})
    overlap = {e.image_digest for e in spec.training} & {e.image_digest for e in spec.heldout}
    if overlap:
        raise BadSpec("HELDOUT_IN_TRAINING", f"{len(overlap)} held-out images are in the training set too")


def _check_example(example: Example, organ_ids: set[str]) -> None:
    if example.source not in ("seed", "target"):
        raise BadSpec("BAD_SPEC", f"example source is {example.source!r}: use 'seed' or 'target'")
    if not (_DIGEST.fullmatch(example.image_digest) and _DIGEST.fullmatch(example.mask_digest)):
        raise BadSpec("BAD_SPEC", "examples name image and mask by SHA-256 digests")
    unknown = set(example.organ_statuses) - organ_ids
    if unknown:
        raise BadSpec("BAD_SPEC", f"organ statuses name {sorted(unknown)}, which the project does not have")
    wrong = set(example.organ_statuses.values()) - STATUSES
    if wrong:
        raise BadSpec("BAD_SPEC", f"organ statuses {sorted(wrong)} are unknown: use {sorted(STATUSES)}")
