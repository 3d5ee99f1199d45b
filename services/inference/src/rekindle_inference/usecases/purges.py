"""Erasing volumes for good, and marking the models that have learnt from them."""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from typing import Protocol

from rekindle.errors import NotFound, RekindleError

from rekindle_inference.domain.manifest import is_sha256
from rekindle_inference.domain.records import ModelVersion, ModelVersionId, ProjectId, VolumeId
from rekindle_inference.domain.uploads import UploadId
from rekindle_inference.ports import Objects, Request
from rekindle_inference.usecases.checks import canonical_key, check_project, wrong_field
from rekindle_inference.usecases.packages import read_package

MAX_VOLUMES = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Doomed:
    """A volume that is to be erased."""

    volume_id: VolumeId
    #: Empty for a predicted mask.
    original_digest: str
    canonical_digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Purged:
    """What a request has erased and marked."""

    volumes: int = 0
    objects: int = 0
    #: Canonical digests that no volume has any more.
    erased_digests: tuple[str, ...] = ()
    marked: tuple[ModelVersionId, ...] = ()


class PurgeWrites(Protocol):
    """One transaction; volumes are not taken in with the same bytes before it ends."""

    def answer_to(self, request: Request) -> str | None: ...

    def answer(self, request: Request, answer: str) -> None: ...

    def doomed(self, project_id: ProjectId, images: Sequence[VolumeId]) -> list[Doomed]:
        """These images, the other series of files that they came in, and all masks of them."""
        ...

    def erase(self, project_id: ProjectId, doomed: Sequence[Doomed]) -> list[UploadId]:
        """Remove the rows and what was made of them, and leave tombstones.

        The uploads that they came with, or were to come with, whose files may still be stored: they are ended.
        """
        ...

    def unreferenced(self, digests: Collection[str], *, originals: bool) -> set[str]:
        """Those that no volume of any project has, as its original or as its canonical digest."""
        ...

    def strike(self, texts: Collection[str]) -> None:
        """Overwrite these wherever an answer that is kept has them."""
        ...

    def note_snapshots(self, project_id: ProjectId, snapshot_digests: Collection[str]) -> None: ...

    def snapshots(self, project_id: ProjectId) -> set[str]:
        """Snapshots of the project that held erased volumes."""
        ...

    def models_of(self, project_id: ProjectId) -> list[ModelVersion]: ...

    def mark(self, model_version_ids: Collection[ModelVersionId]) -> None: ...


class Purges(Protocol):
    """The database, for erasing."""

    def write(self) -> AbstractContextManager[PurgeWrites]: ...

    def wipe(self) -> None:
        """Leave no trace of what was removed in the files of an embedded database."""
        ...


def purge_volumes(
    purges: Purges,
    objects: Objects,
    request: Request,
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
    with purges.write() as writes:
        answered = writes.answer_to(request)
        if answered is None:
            writes.strike(forget_digests)
            doomed = writes.doomed(project, [VolumeId(volume_id) for volume_id in volume_ids])
            purged = _erase(writes, objects, project, doomed, snapshot_digests)
            writes.answer(request, json.dumps(asdict(purged)))
        else:
            purged = _from_json(answered)
    # Again with each repetition: the log may have been read by somebody when the rows were removed.
    purges.wipe()
    return purged


def _erase(
    writes: PurgeWrites,
    objects: Objects,
    project: ProjectId,
    doomed: Sequence[Doomed],
    snapshot_digests: Sequence[str],
) -> Purged:
    for upload_id in writes.erase(project, doomed):
        for key in list(objects.list(f"uploads/{upload_id}/")):
            objects.delete(key)
    gone = sorted(writes.unreferenced({each.canonical_digest for each in doomed}, originals=False))
    keys = [canonical_key(digest) for digest in gone]
    originals = {each.original_digest for each in doomed if each.original_digest}
    keys += [f"volumes/{digest}" for digest in sorted(writes.unreferenced(originals, originals=True))]
    stored = [key for key in keys if objects.exists(key)]
    for key in stored:
        objects.delete(key)
    return Purged(
        volumes=len(doomed),
        objects=len(stored),
        erased_digests=tuple(gone),
        marked=_mark(writes, objects, project, snapshot_digests),
    )


def _mark(
    writes: PurgeWrites, objects: Objects, project: ProjectId, snapshot_digests: Sequence[str]
) -> tuple[ModelVersionId, ...]:
    """Mark the versions that were trained on these snapshots, and those that began with the weights of such."""
    if not snapshot_digests:
        return ()
    writes.note_snapshots(project, snapshot_digests)
    snapshots, models = writes.snapshots(project), writes.models_of(project)
    began_with = {model.model_version_id: _initial_weights(objects, model) for model in models}
    marked = {model.model_version_id for model in models if model.snapshot_digest in snapshots}
    while True:
        weights = {model.weights_digest for model in models if model.model_version_id in marked} - {""}
        heirs = {version for version, initial in began_with.items() if initial in weights} - marked
        if not heirs:
            break
        marked |= heirs
    writes.mark(marked)
    return tuple(model.model_version_id for model in models if model.model_version_id in marked)


def _initial_weights(objects: Objects, model: ModelVersion) -> str:
    try:
        return read_package(objects, model.package_digest).manifest.initial_weights_digest
    except (NotFound, RekindleError):  # a package that cannot be read says nothing; `verify` names it
        return ""


def _from_json(answer: str) -> Purged:
    known = json.loads(answer)
    return Purged(
        volumes=known["volumes"],
        objects=known["objects"],
        erased_digests=tuple(known["erased_digests"]),
        marked=tuple(ModelVersionId(version) for version in known["marked"]),
    )
