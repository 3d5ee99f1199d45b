"""What must hold of a run before it is queued, as field violations."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Final

from rekindle.errors import FieldViolation, InvalidInput

from rekindle_trainer.domain.spec import Example, RunSpec

_RUN_ID = re.compile(r"[a-z0-9][A-Za-z0-9_-]{0,99}")
_ORGAN_ID = re.compile(r"[a-z0-9_]{1,64}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_MAX_PROJECT_ID_LENGTH = 128
_MAX_SEED: Final = 2**63 - 1
#: Violations travel in a trailer, which is small; the first ones are enough to act on.
MAX_VIOLATIONS = 20


def check_spec(spec: RunSpec, catalogue: Mapping[str, frozenset[str]]) -> None:
    """InvalidInput with the fields that are wrong; `catalogue` is preset -> its recipes."""
    raise_violations(list(_violations(spec, catalogue)))


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


def _violations(spec: RunSpec, catalogue: Mapping[str, frozenset[str]]) -> Iterator[FieldViolation]:
    if not _RUN_ID.fullmatch(spec.run_id):
        yield FieldViolation("run_id", "1 to 100 of a-z, A-Z, 0-9, _ and -, beginning with a-z or 0-9; make a UUID")
    if not 0 < len(spec.project_id) <= _MAX_PROJECT_ID_LENGTH or not spec.project_id.isprintable():
        yield FieldViolation("project_id", f"1 to {_MAX_PROJECT_ID_LENGTH} printable characters")
    if spec.kind not in ("igniter", "sustainer"):
        yield FieldViolation("spec.kind", "IGNITER or SUSTAINER is needed")
    if spec.modality not in ("CT", "MR"):
        yield FieldViolation("spec.modality", "the target's modality is needed: CT or MR")
    if not 0 <= spec.seed <= _MAX_SEED:
        yield FieldViolation("spec.seed", "must not be negative")
    yield from _preset(spec, catalogue)
    yield from _organs(spec)
    yield from _digests(spec)
    if not spec.training:
        yield FieldViolation("spec.training", "at least one training example is needed: label a case first")
    elif spec.kind == "igniter" and spec.modality not in spec.modalities:
        yield FieldViolation(
            "spec.training", f"an igniter for {spec.modality} needs at least one {spec.modality} example"
        )
    organ_ids = {organ.id for organ in spec.organs}
    for name, examples in (("training", spec.training), ("heldout", spec.heldout)):
        for index, example in enumerate(examples):
            yield from _example(f"spec.{name}[{index}]", example, organ_ids)
    overlap = {e.image_digest for e in spec.training} & {e.image_digest for e in spec.heldout}
    if overlap:
        yield FieldViolation("spec.heldout", f"{len(overlap)} of its images are in the training set too")


def _preset(spec: RunSpec, catalogue: Mapping[str, frozenset[str]]) -> Iterator[FieldViolation]:
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
        if digest is not None and not _DIGEST.fullmatch(digest):
            yield FieldViolation(f"spec.{name}", "must be empty or a SHA-256 digest in lower-case hex")


def _example(field: str, example: Example, organ_ids: set[str]) -> Iterator[FieldViolation]:
    if example.source not in ("seed", "target"):
        yield FieldViolation(f"{field}.source", "SEED or TARGET is needed")
    if example.modality not in ("CT", "MR"):
        yield FieldViolation(f"{field}.modality", "CT or MR is needed")
    for name, digest in (("image_digest", example.image_digest), ("mask_digest", example.mask_digest)):
        if not _DIGEST.fullmatch(digest):
            yield FieldViolation(f"{field}.{name}", "must be a SHA-256 digest in lower-case hex")
    for organ_id, status in example.organ_statuses.items():
        if organ_id not in organ_ids:
            yield FieldViolation(f"{field}.organ_states", "names an organ that spec.organs does not have")
        elif not status:
            yield FieldViolation(f"{field}.organ_states", f"no status is given for {organ_id}")
