"""The stored form of a run's spec: what its process reads, and what makes two requests the same."""

from __future__ import annotations

from collections.abc import Iterable

from rekindle_trainer.spec import Example, RunSpec, compact_json


def sort_examples(examples: Iterable[Example]) -> tuple[Example, ...]:
    """By content, so that neither ids nor the caller's order decide anything."""
    return tuple(sorted(examples, key=lambda e: (e.source, e.image_digest, e.mask_digest)))


def spec_json(spec: RunSpec) -> bytes:
    """``runs/<run_id>/spec.json``: deterministic for equal specs."""
    return compact_json(
        {
            **vars(spec),
            "organs": [vars(organ) for organ in spec.organs],
            "training": [vars(example) for example in spec.training],
            "heldout": [vars(example) for example in spec.heldout],
        }
    )
