"""The frozen labels of a run, in an order and with a digest that depend on content alone."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from typing import Any

from rekindle.vocabulary import Digest, Example, ExampleSource

from rekindle_scheduler.domain.cases import Case
from rekindle_scheduler.domain.enums import ReviewState
from rekindle_scheduler.domain.held_out import group_of
from rekindle_scheduler.domain.records import Project, SeedCase, Snapshot, Submission


def seed_snapshot(seeds: Iterable[SeedCase], held_out: Iterable[Case] = ()) -> Snapshot:
    """What the igniter is trained on: the seed cases, but for images that are held-out target cases too."""
    kept_images = {case.image_digest for case in held_out}
    return _snapshot([_seed_example(seed) for seed in seeds if seed.image_digest not in kept_images], [])


def cut_snapshot(
    project: Project,
    labelled: Iterable[tuple[Case, Submission]],
    seeds: Iterable[SeedCase],
    held_out_cases: Iterable[Case] = (),
) -> Snapshot:
    """What a sustainer is trained and evaluated on; seed cases join it under the recipe "default".

    `labelled` pairs each labelled case with the submission that counts; only accepted ones are taken.
    An image or a patient that is held out never enters training, under whatever other case or seed it comes;
    `held_out_cases` are those of the project, the ones that are labelled only later among them.
    """
    counted = [(case, s) for case, s in labelled if s.review_state == ReviewState.ACCEPTED]
    held_out = [(case, s) for case, s in counted if case.held_out]
    kept = [*held_out_cases, *(case for case, _ in held_out)]
    kept_groups = {group_of(case.group_key, case.image_digest) for case in kept}
    kept_images = {case.image_digest for case in kept}
    training = [
        _target_example(project, case, submission)
        for case, submission in counted
        if not case.held_out
        and case.image_digest not in kept_images
        and group_of(case.group_key, case.image_digest) not in kept_groups
    ]
    if project.policy.training.recipe == "default":
        training += [_seed_example(seed) for seed in seeds if seed.image_digest not in kept_images]
    return _snapshot(training, [_target_example(project, case, submission) for case, submission in held_out])


def snapshot_digest(training: Iterable[Example], heldout: Iterable[Example]) -> Digest:
    """SHA-256 of the sorted compact JSON of both lists without case ids."""
    lists = {"heldout": [_plain(e) for e in heldout], "training": [_plain(e) for e in training]}
    text = json.dumps(lists, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return Digest(hashlib.sha256(text.encode()).hexdigest())


def _snapshot(training: list[Example], heldout: list[Example]) -> Snapshot:
    train, held = tuple(sorted(training, key=_order)), tuple(sorted(heldout, key=_order))
    return Snapshot(digest=snapshot_digest(train, held), training=train, heldout=held)


def _order(example: Example) -> tuple[str, str, str]:
    return example.source, example.image_digest, example.mask_digest


def _seed_example(seed: SeedCase) -> Example:
    return Example(
        case_id=seed.seed_case_id,
        source=ExampleSource.SEED,
        modality=seed.modality,
        image_digest=seed.image_digest,
        mask_digest=seed.mask_digest,
        organ_states=seed.organ_states,
    )


def _target_example(project: Project, case: Case, submission: Submission) -> Example:
    return Example(
        case_id=case.case_id,
        source=ExampleSource.TARGET,
        modality=project.target_modality,
        image_digest=case.image_digest,
        mask_digest=submission.mask_digest,
        organ_states=submission.organ_states,
    )


def _plain(example: Example) -> dict[str, Any]:
    return {
        "image_digest": example.image_digest,
        "mask_digest": example.mask_digest,
        "modality": example.modality.value,
        "organ_statuses": {state.organ_id: state.status.value for state in example.organ_states},
        "source": example.source.value,
    }
