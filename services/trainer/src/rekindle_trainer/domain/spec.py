"""RunSpec: what one training run is to do, its stored form, and the rules that it must keep.

The service names every broken rule by its field before it queues a run; the process that reads the stored spec ends
with the first one.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from rekindle.errors import FieldViolation, InvalidInput
from rekindle.vocabulary import (
    Example,
    ExampleSource,
    Modality,
    Organ,
    OrganState,
    OrganStatus,
    RunKind,
    is_sha256,
)

#: Most violations that one error names: they travel in a trailer, which is small.
MAX_VIOLATIONS: Final = 20
_RUN_ID: Final = re.compile(r"[a-z0-9][A-Za-z0-9_-]{0,99}")
#: Wider than the rule for new organs: runs of earlier releases may name one that begins with a digit.
_ORGAN_ID: Final = re.compile(r"[a-z0-9_]{1,64}")
_MAX_PROJECT_ID_LENGTH: Final = 128
_MAX_SEED: Final = 2**63 - 1
#: Reasons of a process that cannot do what its spec says, by the field that is wrong.
_REASONS: Final = {"spec.training": "NO_TRAINING_DATA", "spec.heldout": "HELDOUT_IN_TRAINING"}


class BadSpec(Exception):
    """The run cannot be done as specified; `reason` is UPPER_SNAKE, the message says what to change."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message


@dataclass(frozen=True, kw_only=True)
class RunSpec:
    """Examples are sorted by (source, image digest), so that no result depends on ids of cases."""

    run_id: str
    project_id: str
    kind: RunKind
    preset: str
    recipe: str
    seed: int
    #: Modality of the target set.
    modality: Modality
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
    def modalities(self) -> tuple[Modality, ...]:
        return tuple(sorted({example.modality for example in self.training}))

    def snapshot_digest(self) -> str:
        """SHA-256 of the examples' sorted compact JSON without case ids."""
        lists = {"training": _by_content(self.training), "heldout": _by_content(self.heldout)}
        return hashlib.sha256(compact_json(lists)).hexdigest()


def compact_json(value: Any) -> bytes:
    """Sorted keys, no spaces, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def parse_spec(data: bytes) -> RunSpec:
    """Raise BadSpec where `data` is not a complete and consistent spec."""
    try:
        raw: dict[str, Any] = json.loads(data)
        raw["organs"] = tuple(Organ(**organ) for organ in raw["organs"])
        raw["training"] = _sorted(_example(item) for item in raw["training"])
        raw["heldout"] = _sorted(_example(item) for item in raw["heldout"])
        raw["kind"], raw["modality"] = RunKind(raw["kind"]), Modality(raw["modality"])
        spec = RunSpec(**raw)
        _check(spec)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise BadSpec("BAD_SPEC", f"the run's spec cannot be read: {type(error).__name__}: {error}") from None
    return spec


def in_order(spec: RunSpec) -> RunSpec:
    """The spec with its examples sorted by content, so that the caller's order decides nothing."""
    return replace(spec, training=_sorted(spec.training), heldout=_sorted(spec.heldout))


def spec_json(spec: RunSpec) -> bytes:
    """The stored form of a spec in order: equal specs have equal bytes."""
    return compact_json(
        {
            **vars(spec),
            "organs": [{"id": organ.id, "label_value": organ.label_value} for organ in spec.organs],
            "training": [_stored(example) for example in spec.training],
            "heldout": [_stored(example) for example in spec.heldout],
        }
    )


def _stored(example: Example) -> dict[str, Any]:
    return {
        "case_id": example.case_id,
        "source": example.source,
        "modality": example.modality,
        "image_digest": example.image_digest,
        "mask_digest": example.mask_digest,
        "organ_statuses": {state.organ_id: state.status for state in example.organ_states},
    }


def _example(raw: dict[str, Any]) -> Example:
    states = raw.pop("organ_statuses").items()
    return Example(
        source=ExampleSource(raw.pop("source")),
        modality=Modality(raw.pop("modality")),
        organ_states=tuple(OrganState(organ_id=name, status=OrganStatus(status)) for name, status in states),
        **raw,
    )


def _by_content(examples: tuple[Example, ...]) -> list[dict[str, Any]]:
    return [{key: value for key, value in _stored(item).items() if key != "case_id"} for item in examples]


def _sorted(examples: Iterable[Example]) -> tuple[Example, ...]:
    return tuple(sorted(examples, key=lambda e: (e.source, e.image_digest, e.mask_digest)))


def check_spec(spec: RunSpec, catalogue: Mapping[str, frozenset[str]]) -> None:
    """InvalidInput with the fields that are wrong; `catalogue` is preset -> its recipes."""
    raise_violations([*_content_violations(spec), *_preset_violations(spec, catalogue)])


def raise_violations(violations: list[FieldViolation]) -> None:
    """InvalidInput that names the fields, where there are any."""
    if not violations:
        return
    first, more = violations[0], len(violations) - 1
    rest = f" (and {more} more)" if more else ""
    raise InvalidInput(
        f"the run cannot be started: {first.field}: {first.description}{rest}",
        violations=violations[:MAX_VIOLATIONS],
    )


def _content_violations(spec: RunSpec) -> Iterator[FieldViolation]:
    """All rules but those of a preset, which belong to a release."""
    if not _RUN_ID.fullmatch(spec.run_id):
        yield FieldViolation("run_id", "1 to 100 of a-z, A-Z, 0-9, _ and -, beginning with a-z or 0-9; make a UUID")
    if not 0 < len(spec.project_id) <= _MAX_PROJECT_ID_LENGTH or not spec.project_id.isprintable():
        yield FieldViolation("project_id", f"1 to {_MAX_PROJECT_ID_LENGTH} printable characters")
    if spec.kind not in list(RunKind):
        yield FieldViolation("spec.kind", "IGNITER or SUSTAINER is needed")
    if spec.modality not in list(Modality):
        yield FieldViolation("spec.modality", "the target's modality is needed: CT or MR")
    if type(spec.seed) is not int or not 0 <= spec.seed <= _MAX_SEED:
        yield FieldViolation("spec.seed", "must be a whole number from 0 to 2^63 - 1")
    yield from _organs(spec)
    yield from _digests(spec)
    if not spec.training:
        yield FieldViolation("spec.training", "at least one training example is needed: label a case first")
    elif _lacks_modality(spec):
        yield FieldViolation(
            "spec.training", f"an igniter for {spec.modality} needs at least one {spec.modality} example"
        )
    organ_ids = {organ.id for organ in spec.organs}
    for name, examples in (("training", spec.training), ("heldout", spec.heldout)):
        for index, example in enumerate(examples):
            yield from _example_violations(f"spec.{name}[{index}]", example, organ_ids)
    overlap = {e.image_digest for e in spec.training} & {e.image_digest for e in spec.heldout}
    if overlap:
        yield FieldViolation("spec.heldout", f"{len(overlap)} of its images are in the training set too")


def _lacks_modality(spec: RunSpec) -> bool:
    """Whether an igniter would learn nothing of the target's modality."""
    return bool(spec.training) and spec.kind == RunKind.IGNITER and spec.modality not in spec.modalities


def _check(spec: RunSpec) -> None:
    """BadSpec for the first broken rule of those that need no preset."""
    for violation in _content_violations(spec):
        reason = "MODALITY_MISSING" if _lacks_modality(spec) else _REASONS.get(violation.field, "BAD_SPEC")
        raise BadSpec(reason, f"{violation.field}: {violation.description}")


def _preset_violations(spec: RunSpec, catalogue: Mapping[str, frozenset[str]]) -> Iterator[FieldViolation]:
    if spec.preset not in catalogue:
        yield FieldViolation("spec.preset", f"unknown: use one of {', '.join(sorted(catalogue))}")
    elif spec.recipe not in catalogue[spec.preset]:
        known = ", ".join(sorted(catalogue[spec.preset]))
        yield FieldViolation("spec.recipe", f"unknown: preset {spec.preset} has {known}")


def _organs(spec: RunSpec) -> Iterator[FieldViolation]:
    if not spec.organs:
        yield FieldViolation("spec.organs", "at least one organ is needed")
    ids: set[str] = set()
    values: set[int] = set()
    for index, organ in enumerate(spec.organs):
        if not _ORGAN_ID.fullmatch(organ.id):
            yield FieldViolation(f"spec.organs[{index}].id", "1 to 64 lower-case letters, digits and underscores")
        elif organ.id in ids:
            yield FieldViolation(f"spec.organs[{index}].id", "is there twice")
        if not 1 <= organ.label_value <= 255:
            yield FieldViolation(f"spec.organs[{index}].label_value", "must be 1 to 255")
        elif organ.label_value in values:
            yield FieldViolation(f"spec.organs[{index}].label_value", "belongs to another organ too")
        ids.add(organ.id)
        values.add(organ.label_value)


def _digests(spec: RunSpec) -> Iterator[FieldViolation]:
    digests = {"initial_weights_digest": spec.initial_weights, "current_package_digest": spec.current_package}
    for name, digest in digests.items():
        if digest is not None and not is_sha256(digest):
            yield FieldViolation(f"spec.{name}", "must be empty or a SHA-256 digest in lower-case hex")


def _example_violations(field: str, example: Example, organ_ids: set[str]) -> Iterator[FieldViolation]:
    if example.source not in list(ExampleSource):
        yield FieldViolation(f"{field}.source", "SEED or TARGET is needed")
    if example.modality not in list(Modality):
        yield FieldViolation(f"{field}.modality", "CT or MR is needed")
    for name, digest in (("image_digest", example.image_digest), ("mask_digest", example.mask_digest)):
        if not is_sha256(digest):
            yield FieldViolation(f"{field}.{name}", "must be a SHA-256 digest in lower-case hex")
    for state in example.organ_states:
        if state.organ_id not in organ_ids:
            yield FieldViolation(f"{field}.organ_states", "names an organ that spec.organs does not have")
        elif state.status not in list(OrganStatus):
            yield FieldViolation(f"{field}.organ_states", f"no status is given for {state.organ_id}")
