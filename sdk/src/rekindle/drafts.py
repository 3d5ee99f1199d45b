"""Drafts: unfinished labels as the service keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from rekindle._call import Progress
from rekindle._services import Services
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.scheduler.v1 import annotation_pb2 as api
from rekindle.convert import from_proto, name_of
from rekindle.records import moment
from rekindle.timer import TimeSegment
from rekindle.volumes import VolumeFile, download


@dataclass(frozen=True, kw_only=True)
class Draft:
    """An unfinished label. `mask()` downloads what was drawn."""

    id: str
    project_id: str
    case_id: str
    lease_id: str
    mask_volume_id: str
    #: Organ id to what was stated so far: "edited", "accepted", "absent", "out_of_view", "not_reviewed".
    statuses: dict[str, str]
    note: str
    #: Time booked for the lease so far.
    time_segments: tuple[TimeSegment, ...]
    saved: datetime | None
    #: Number of saves, from 1.
    revision: int
    #: Whether it was saved under a lost lease; it is kept next to the lease's own draft.
    late: bool
    services: Services

    @property
    def minutes(self) -> float:
        """Time on it so far."""
        return sum(segment.active_seconds for segment in self.time_segments) / 60

    def mask(self, progress: Progress | None = None) -> VolumeFile:
        """Downloads the mask."""
        return download(self.services, self.project_id, self.mask_volume_id, progress)

    @classmethod
    def from_proto(cls, message: api.Draft, services: Services) -> Draft:
        return from_proto(
            message,
            cls,
            id=message.draft_id,
            # Organ statuses are spelled as in `Lease.submit`.
            statuses={
                item.organ_id: name_of(common.OrganStatus, item.status).replace("-", "_")
                for item in message.organ_states
            },
            time_segments=tuple(TimeSegment.from_proto(item) for item in message.time_segments),
            saved=moment(message, "save_time"),
            services=services,
        )
