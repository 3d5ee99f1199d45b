"""Volumes by where they came from."""

from __future__ import annotations

from collections.abc import Mapping

from rekindle_servicekit.pages import Page, Paging

from rekindle_inference.domain.records import VolumeRecord
from rekindle_inference.state import State
from rekindle_inference.usecases.checks import check_project, place_of, wrong_field

_MAX_VALUE = 64


def find_volumes(state: State, project_id: str, criteria: Mapping[str, str], paging: Paging) -> Page[VolumeRecord]:
    """A page of the volumes whose source reference has all the criteria (kind -> value, "" for any), newest first.

    InvalidInput where there is no criterion. The place of a volume is moment and id.
    """
    wanted = {kind: value for kind, value in criteria.items() if value}
    if not wanted:
        raise wrong_field("study_instance_uid", f"or another criterion must be given: {', '.join(criteria)}")
    for kind, value in wanted.items():
        if len(value) > _MAX_VALUE:
            raise wrong_field(kind, f"must have at most {_MAX_VALUE} characters")
    project, after = check_project(project_id), place_of(paging)
    with state.read() as uow:
        volumes = uow.volumes.find(project, wanted, limit=paging.limit, after=after)
    return paging.page(volumes, lambda volume: [volume.created_at.isoformat(), volume.volume_id])
