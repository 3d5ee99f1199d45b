"""Erasing volumes for good, and marking the models that have learnt from them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from rekindle.errors import NotFound, RekindleError
from rekindle.vocabulary import is_sha256
from rekindle_servicekit import layout
from rekindle_servicekit.idempotency import RequestKey
from rekindle_servicekit.json_codec import decode, encode
from rekindle_servicekit.layout import UploadKeys
from rekindle_servicekit.objects import Objects

from rekindle_inference.domain.records import ModelVersion, ModelVersionId, ProjectId, VolumeId
from rekindle_inference.state import PurgeTarget, State, UnitOfWork
from rekindle_inference.usecases.checks import check_project, wrong_field
from rekindle_inference.usecases.packages import read_package

MAX_VOLUMES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """What a request has erased and marked."""

    volumes: int = 0
    objects: int = 0
    #: Canonical digests that no volume has any more.
    erased_digests: tuple[str, ...] = ()
    marked: tuple[ModelVersionId, ...] = ()


def purge_volumes(
    state: State,
    objects: Objects,
    request: RequestKey,
    *,
    project_id: str,
    volume_ids: Sequence[str],
    snapshot_digests: Sequence[str],
    forget_digests: Sequence[str],
) -> Purged:
    """Erase images with all that was made of them; once per request id, and harmless when repeated.

    Objects are removed within the transaction: where it is not committed, the next try removes the rest.
    """
    project = check_project(project_id)
    if len(volume_ids) > MAX_VOLUMES:
        raise wrong_field("volume_ids", f"must be at most {MAX_VOLUMES}")
    for field, digests in (("snapshot_digests", snapshot_digests), ("forget_digests", forget_digests)):
        if not all(is_sha256(digest) for digest in digests):
            raise wrong_field(field, "must be SHA-256 digests in lower-case hex")
    with state.write() as uow:
        answered = uow.requests.find(request)
        if answered is None:
            uow.purges.redact(forget_digests)
            targets = uow.purges.targets(project, [VolumeId(volume_id) for volume_id in volume_ids])
            purged = _erase(uow, objects, project, targets, snapshot_digests)
            uow.requests.add(request, json.dumps(encode(purged)).encode())
        else:
            purged = decode(Purged, json.loads(answered))
    # Again with each repetition: the log may have been read by somebody when the rows were removed.
    state.wipe()
    return purged


def _erase(
    uow: UnitOfWork,
    objects: Objects,
    project: ProjectId,
    targets: Sequence[PurgeTarget],
    snapshot_digests: Sequence[str],
) -> Purged:
    for upload_id in uow.purges.purge(project, targets):
        for key in list(objects.list(UploadKeys(upload_id).folder)):
            objects.delete(key)
    gone = sorted(uow.purges.unreferenced({target.canonical_digest for target in targets}, originals=False))
    keys = [layout.canonical(digest) for digest in gone]
    originals = {target.original_digest for target in targets if target.original_digest}
    keys += [layout.original(digest) for digest in sorted(uow.purges.unreferenced(originals, originals=True))]
    stored = [key for key in keys if objects.exists(key)]
    for key in stored:
        objects.delete(key)
    return Purged(
        volumes=len(targets),
        objects=len(stored),
        erased_digests=tuple(gone),
        marked=_mark(uow, objects, project, snapshot_digests),
    )


def _mark(
    uow: UnitOfWork, objects: Objects, project: ProjectId, snapshot_digests: Sequence[str]
) -> tuple[ModelVersionId, ...]:
    """Mark the versions that were trained on these snapshots, and those that began with the weights of such."""
    if not snapshot_digests:
        return ()
    uow.purges.note_snapshots(project, snapshot_digests)
    snapshots, models = uow.purges.snapshots(project), uow.models.page(project)
    began_with = {model.model_version_id: _initial_weights(objects, model) for model in models}
    marked = {model.model_version_id for model in models if model.snapshot_digest in snapshots}
    while True:
        weights = {model.weights_digest for model in models if model.model_version_id in marked} - {""}
        heirs = {version for version, initial in began_with.items() if initial in weights} - marked
        if not heirs:
            break
        marked |= heirs
    uow.models.mark_trained_on_purged(marked)
    return tuple(model.model_version_id for model in models if model.model_version_id in marked)


def _initial_weights(objects: Objects, model: ModelVersion) -> str:
    try:
        return read_package(objects, model.package_digest).manifest.lineage.initial_weights_digest
    except (NotFound, RekindleError):  # a package that cannot be read says nothing; `verify` names it
        return ""
