"""Redacting erased volumes in the records of runs, and telling what has learnt from them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from uuid import uuid4

from rekindle.errors import FieldViolation, NotFound
from rekindle.vocabulary import is_sha256
from rekindle_servicekit.layout import RunKeys
from rekindle_servicekit.objects import Objects

from rekindle_trainer.domain.runs import Run
from rekindle_trainer.domain.spec import raise_violations
from rekindle_trainer.state import State, UnitOfWork
from rekindle_trainer.usecases.runs import request_cancel

_MAX_DIGESTS = 10_000
#: What a run leaves that names its examples; weights, metrics and packages do not.
_NAMES_EXAMPLES = ("spec.json", "result.json", "failure.json")
#: Ends the key of a new text until it has taken the place of the old one.
_STAGED = ".struck"


@dataclass(frozen=True, slots=True, kw_only=True)
class PurgeReport:
    """Snapshots and runs that have learnt from erased volumes."""

    snapshot_digests: tuple[str, ...]
    run_ids: tuple[str, ...]


def purge_examples(uow: UnitOfWork, project_id: str, digests: Sequence[str]) -> PurgeReport:
    """Redact canonical digests in a project's rows; runs under way that hold one are cancelled.

    The processes of running ones are stopped by the supervisor. InvalidInput names a wrong field.
    """
    _check(project_id, digests)
    runs, erased = uow.runs_of(project_id), set(digests)
    report = _report(runs, erased)
    uow.redact(project_id, {digest: _stand_in() for digest in digests})
    for run in runs:
        if not run.has_ended and _holds(run, erased):
            request_cancel(uow, project_id, run.run_id)
    return report


def redact_outputs(state: State, objects: Objects, project_id: str, digests: Sequence[str]) -> None:
    """Redact the digests in what the project's runs have left, and wipe the database's files.

    After the commit, and again with each repetition: the process of a cancelled run may still write.
    """
    with state.read() as uow:
        run_ids = [run.run_id for run in uow.runs_of(project_id)]
    for run_id in run_ids:
        _redact_objects(objects, run_id, digests)
    state.wipe()


def _report(runs: Iterable[Run], digests: set[str]) -> PurgeReport:
    """Runs whose training held one of them, and those that began with the weights of such a run."""
    taught: dict[str, Run] = {}
    weights: set[str] = set()
    for run in sorted(runs, key=lambda run: (run.created_at, run.run_id)):
        has_one = any({e.image_digest, e.mask_digest} & digests for e in run.spec.training)
        if has_one or run.spec.initial_weights in weights:
            taught[run.run_id] = run
            if run.result is not None:
                weights.add(run.result.weights_digest)
    return PurgeReport(
        snapshot_digests=tuple(sorted({run.snapshot_digest for run in taught.values()})),
        run_ids=tuple(taught),
    )


def _holds(run: Run, digests: set[str]) -> bool:
    return any({e.image_digest, e.mask_digest} & digests for e in (*run.spec.training, *run.spec.heldout))


def _redact_objects(objects: Objects, run_id: str, digests: Collection[str]) -> None:
    for key in list(objects.list(RunKeys(run_id).folder)):
        if key.endswith(_STAGED):  # somebody was killed on the way
            _put_in_place(objects, key.removesuffix(_STAGED))
    for key in list(objects.list(RunKeys(run_id).folder)):
        if not key.endswith(_NAMES_EXAMPLES):
            continue
        try:
            data = objects.get(key)
        except NotFound:
            continue
        redacted = _redacted(data, digests)
        if redacted != data:
            # Objects are immutable, so the new text takes the place of the old one in steps that always leave one.
            objects.put(f"{key}{_STAGED}", redacted)
            objects.delete(key)
            _put_in_place(objects, key)


def _put_in_place(objects: Objects, key: str) -> None:
    staged = f"{key}{_STAGED}"
    if not objects.exists(key):
        objects.put(key, objects.get(staged))
    objects.delete(staged)


def _redacted(data: bytes, digests: Collection[str]) -> bytes:
    """As bytes: a damaged object must not keep the others from being redacted."""
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
    if not all(is_sha256(digest) for digest in digests):
        wrong.append(FieldViolation("digests", "must be SHA-256 digests in lower-case hex"))
    raise_violations(wrong)
