"""Checks that several use cases share."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime

from rekindle.errors import FieldViolation, IntegrityError, InvalidInput, NotFound, quoted_id
from rekindle.vocabulary import ORGAN_ID, Organ
from rekindle_imaging import canonical
from rekindle_imaging.errors import VolumeError
from rekindle_imaging.package import READABLE_ORGAN_ID
from rekindle_imaging.volume import Volume
from rekindle_servicekit import layout
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.pages import Paging

from rekindle_inference.domain.records import ProjectId, VolumeId, VolumeRecord
from rekindle_inference.state import State, UnitOfWork

_PROJECT_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


def check_project(project_id: str) -> ProjectId:
    """InvalidInput unless it can be a project's id."""
    if _PROJECT_ID.fullmatch(project_id) is None:
        raise wrong_field("project_id", "must be the id of a project")
    return ProjectId(project_id)


def check_organs(organs: Sequence[Organ], *, are_new: bool = False) -> tuple[Organ, ...]:
    """InvalidInput unless they are 1 to 255 with ids and label values of their own.

    The ids of new organs follow `ORGAN_ID`; those of a package or a mask that exists may be wider.
    """
    rule = ORGAN_ID if are_new else READABLE_ORGAN_ID
    if not 1 <= len(organs) <= 255:
        raise wrong_field("organs", "must list 1 to 255 organs")
    for index, organ in enumerate(organs):
        if rule.fullmatch(organ.id) is None:
            raise wrong_field(f"organs[{index}].id", f"must match {rule.pattern}")
        if not 1 <= organ.label_value <= 255:
            raise wrong_field(f"organs[{index}].label_value", "must be 1 to 255")
    if len({o.id for o in organs}) < len(organs) or len({o.label_value for o in organs}) < len(organs):
        raise wrong_field("organs", "must not share ids or label values")
    return tuple(organs)


def wrong_field(field: str, description: str) -> InvalidInput:
    """What to raise for one field of the request."""
    return InvalidInput(f"{field} {description}", violations=[FieldViolation(field, description)])


def place_of(paging: Paging) -> tuple[datetime, str] | None:
    """Moment and id behind which a page of a list goes on, newest first; None for the first page."""
    moment, item_id = paging.after
    if not moment:
        return None
    try:
        return datetime.fromisoformat(moment), item_id
    except ValueError:
        raise wrong_field("page_token", "is not a token of this service: begin with the first page") from None


def purged(volume_id: str, field: str) -> NotFound:
    """What to raise for a volume of which nothing but the id is left."""
    return NotFound(f"volume {quoted_id(volume_id)} was erased ({field})", reason="PURGED")


def require_volume(uow: UnitOfWork, project_id: ProjectId, volume_id: str, *, field: str) -> VolumeRecord:
    """The volume; NotFound where it does not exist or belongs to another project."""
    found = uow.volumes.get(project_id, VolumeId(volume_id))
    if found is None and uow.volumes.is_purged(project_id, VolumeId(volume_id)):
        raise purged(volume_id, field)
    if found is None:
        raise NotFound(
            f"there is no volume {quoted_id(volume_id)} in this project ({field})", reason="VOLUME_NOT_FOUND"
        )
    return found


def load_volume(objects: Objects, digest: str, max_voxels: int) -> Volume:
    """The voxels of a canonical object, every byte checked against its digest; IntegrityError."""
    try:
        data = objects.get(layout.canonical(digest))
        return canonical.decode(data, max_voxels=max_voxels, expected_digest=digest)
    except (NotFound, VolumeError) as error:
        raise IntegrityError(
            f"the stored voxels {digest} are {'damaged' if isinstance(error, VolumeError) else 'missing'}: "
            "restore the object store, or upload the volume again",
            reason="DIGEST_MISMATCH" if isinstance(error, VolumeError) else "OBJECT_MISSING",
        ) from error


def keep_stored(objects: Objects, key: str, data: bytes) -> None:
    """Within the transaction that refers to it: store an object again that was erased since it was stored."""
    if not objects.exists(key):
        objects.put(key, data)


def drop_if_erased(
    state: State, objects: Objects, image: VolumeRecord, *, canonical_digest: str, original_digest: str = ""
) -> bool:
    """Whether an image was erased meanwhile: then what was stored of a mask of it goes too, unless others have it."""
    with state.write() as uow:
        if not uow.volumes.is_purged(image.project_id, image.volume_id):
            return False
        # Whoever takes in the same bytes waits, and stores them again where they have gone meanwhile.
        uow.volumes.hold(digest for digest in (canonical_digest, original_digest) if digest)
        if uow.volumes.is_free(canonical_digest):
            objects.delete(layout.canonical(canonical_digest))
        if original_digest and uow.volumes.is_free(original_digest, original=True):
            objects.delete(layout.original(original_digest))
        return True
