"""The stored form of a run's spec: what its process reads, and what makes two requests the same."""

from __future__ import annotations

from dataclasses import replace

from rekindle_trainer.domain.spec import Example, RunSpec, compact_json


def in_order(spec: RunSpec) -> RunSpec:
    """The spec with its examples sorted by content, so that the caller's order decides nothing."""
    return replace(spec, training=_sorted(spec.training), heldout=_sorted(spec.heldout))


def spec_json(spec: RunSpec) -> bytes:
    """``runs/<run_id>/spec.json`` of a spec in order: deterministic for equal specs."""
    return compact_json(
        {
            **vars(spec),
            "organs": [vars(organ) for organ in spec.organs],
            "training": [vars(example) for example in spec.training],
            "heldout": [vars(example) for example in spec.heldout],
        }
    )


def _sorted(examples: tuple[Example, ...]) -> tuple[Example, ...]:
    return tuple(sorted(examples, key=lambda e: (e.source, e.image_digest, e.mask_digest)))
