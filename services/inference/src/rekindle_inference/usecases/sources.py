"""Volumes by where they came from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from rekindle_inference.domain.records import VolumeId, VolumeRecord
from rekindle_inference.ports import State
from rekindle_inference.usecases.checks import check_project, wrong_field

MAX_PAGE = 1000
DEFAULT_PAGE = 100
_MAX_VALUE = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class VolumePage:
    volumes: tuple[VolumeRecord, ...]
    next_page_token: str


def find_volumes(
    state: State, project_id: str, criteria: Mapping[str, str], page_size: int, page_token: str
) -> VolumePage:
    """A page of the volumes whose source reference has all the criteria (kind -> value, "" for any), newest first.

    InvalidInput where there is no criterion, or for a token that is none of ours.
    """
    wanted = {kind: value for kind, value in criteria.items() if value}
    if not wanted:
        raise wrong_field("study_instance_uid", f"or another criterion must be given: {', '.join(criteria)}")
    for kind, value in wanted.items():
        if len(value) > _MAX_VALUE:
            raise wrong_field(kind, f"must have at most {_MAX_VALUE} characters")
    if page_size < 0:
        raise wrong_field("page_size", f"must be 1 to {MAX_PAGE}, or 0 for {DEFAULT_PAGE}")
    limit = min(page_size, MAX_PAGE) or DEFAULT_PAGE
    project, after = check_project(project_id), VolumeId(page_token) if page_token else None
    with state.read() as reads:
        if after is not None and reads.volume(project, after) is None:
            raise wrong_field("page_token", "must be the next_page_token of an answer before, or empty")
        found = reads.find_volumes(project, wanted, limit=limit + 1, after=after)
    page = tuple(found[:limit])
    return VolumePage(volumes=page, next_page_token=page[-1].volume_id if len(found) > limit else "")
