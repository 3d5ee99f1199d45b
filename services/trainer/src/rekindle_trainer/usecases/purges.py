"""Striking erased volumes out of the records of runs, and telling what has learnt from them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from uuid import uuid4

from rekindle.errors import FieldViolation, NotFound
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.principal import Principal

from rekindle_trainer.domain.runs import Run
from rekindle_trainer.domain.spec import compact_json
from rekindle_trainer.domain.validation import raise_violations
from rekindle_trainer.ports import PurgeState

_METHOD = "PurgeExamples"
_MAX_DIGESTS = 10_000
_DIGEST = re.compile(r"[0-9a-f]{64}")
#: What a run leaves that names its examples; weights, metrics and packages do not.
_NAMES_EXAMPLES = ("spec.json", "result.json", "failure.json")
#: Ends the key of a new text until it has taken the place of the old one.
_STAGED = ".struck"


@dataclass(frozen=True, slots=True, kw_only=True)
class Learnt:
    """What has learnt from erased volumes."""

    snapshot_digests: tuple[str, ...]
    run_ids: tuple[str, ...]


def purge_examples(
    state: PurgeState,
    objects: Objects,
    principal: Principal,
    *,
    request_id: str,
    project_id: str,
    digests: Sequence[str],
) -> Learnt:
    """Strike canonical digests out of a project's runs; runs under way that hold one are cancelled.

    Once per request id; what is answered is what the runs held the first time.
    """
    _check(project_id, digests)
    request_digest = hashlib.sha256(compact_json([project_id, sorted(digests)])).hexdigest()
    with state.purge() as tx:
        answered = tx.answer_to(principal, _METHOD, request_id, request_digest)
        runs = tx.runs_of(project_id)
        if answered is None:
            learnt = _learnt(runs, set(digests))
            tx.strike(project_id, {digest: _stand_in() for digest in digests})
            tx.cancel([run.run_id for run in runs if not run.has_ended and _holds(run, set(digests))])
            tx.answer(principal, _METHOD, request_id, request_digest, _to_json(learnt))
        else:
            learnt = _from_json(answered)
    # After the commit, and again with each repetition: the process of a cancelled run may still write.
    for run in runs:
        _strike_objects(objects, run.run_id, digests)
    state.wipe()
    return learnt


def _learnt(runs: Iterable[Run], digests: set[str]) -> Learnt:
    """Runs whose training held one of them, and those that began with the weights of such a run."""
    found: dict[str, Run] = {}
    weights: set[str] = set()
    for run in sorted(runs, key=lambda run: (run.created_at, run.run_id)):
        taught = any({e.image_digest, e.mask_digest} & digests for e in run.spec.training)
        if taught or run.spec.initial_weights in weights:
            found[run.run_id] = run
            if run.result is not None:
                weights.add(run.result.weights_digest)
    return Learnt(
        snapshot_digests=tuple(sorted({run.snapshot_digest for run in found.values()})),
        run_ids=tuple(found),
    )


def _holds(run: Run, digests: set[str]) -> bool:
    return any({e.image_digest, e.mask_digest} & digests for e in (*run.spec.training, *run.spec.heldout))


def _strike_objects(objects: Objects, run_id: str, digests: Collection[str]) -> None:
    for key in list(objects.list(f"runs/{run_id}/")):
        if key.endswith(_STAGED):  # somebody was killed on the way
            _put_in_place(objects, key.removesuffix(_STAGED))
    for key in list(objects.list(f"runs/{run_id}/")):
        if not key.endswith(_NAMES_EXAMPLES):
            continue
        try:
            data = objects.get(key)
        except NotFound:
            continue
        struck = _struck_out(data, digests)
        if struck != data:
            # Objects are immutable, so the new text takes the place of the old one in steps that always leave one.
            objects.put(f"{key}{_STAGED}", struck)
            objects.delete(key)
            _put_in_place(objects, key)


def _put_in_place(objects: Objects, key: str) -> None:
    staged = f"{key}{_STAGED}"
    if not objects.exists(key):
        objects.put(key, objects.get(staged))
    objects.delete(staged)


def _struck_out(data: bytes, digests: Collection[str]) -> bytes:
    """As bytes: one that is damaged must not keep the others from being struck."""
    for digest in digests:
        if digest.encode() in data:
            data = data.replace(digest.encode(), _stand_in().encode())
    return data


def _stand_in() -> str:
    """Reads as a digest, is none, and is no other one's: examples stay apart."""
    return "0" * 32 + uuid4().hex


def _check(project_id: str, digests: Sequence[str]) -> None:
    wrong: list[FieldViolation] = []
    if not project_id:
        wrong.append(FieldViolation("project_id", "is missing"))
    if len(digests) > _MAX_DIGESTS:
        wrong.append(FieldViolation("digests", f"must be at most {_MAX_DIGESTS}"))
    if not all(_DIGEST.fullmatch(digest) for digest in digests):
        wrong.append(FieldViolation("digests", "must be SHA-256 digests in lower-case hex"))
    raise_violations(wrong)


def _to_json(learnt: Learnt) -> bytes:
    return compact_json({"snapshots": list(learnt.snapshot_digests), "runs": list(learnt.run_ids)})


def _from_json(answer: bytes) -> Learnt:
    known = json.loads(answer)
    return Learnt(snapshot_digests=tuple(known["snapshots"]), run_ids=tuple(known["runs"]))
