"""Erasing a patient from a project."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Self

from google.protobuf.timestamp_pb2 import Timestamp

from rekindle._call import new_request_id
from rekindle._project_base import ProjectBase
from rekindle._services import Services
from rekindle.api.scheduler.v1 import purges_pb2
from rekindle.api.scheduler.v1 import scheduler_pb2 as scheduler
from rekindle.archives import export_project
from rekindle.convert import name_of
from rekindle.errors import DeadlineExceeded

_POLL_S = 0.2


class Purge:
    """A handle on the erasure of one patient; `refresh` and `wait` bring it up to date."""

    def __init__(self, services: Services, purge: purges_pb2.Purge) -> None:
        self._services = services
        self._purge = purge

    @property
    def id(self) -> str:
        return self._purge.purge_id

    @property
    def state(self) -> str:
        """ "erasing" or "done"."""
        return name_of(purges_pb2.PurgeState, self._purge.state)

    @property
    def reason(self) -> str:
        return self._purge.reason

    @property
    def waiting_for(self) -> str:
        """Why it has not ended yet; empty where it only takes its time."""
        return self._purge.waiting_for

    @property
    def case_ids(self) -> tuple[str, ...]:
        """Tombstones that are left."""
        return tuple(self._purge.case_ids)

    @property
    def submissions(self) -> int:
        return self._purge.submissions

    @property
    def volumes(self) -> int:
        """Images and masks erased; final once it is done."""
        return self._purge.volumes

    @property
    def objects(self) -> int:
        """Objects removed from the store; final once it is done."""
        return self._purge.objects

    @property
    def marked_model_version_ids(self) -> tuple[str, ...]:
        """Model versions that have learnt from the patient; final once it is done."""
        return tuple(self._purge.marked_model_version_ids)

    @property
    def requested(self) -> datetime:
        return _moment(self._purge.request_time)

    @property
    def ended(self) -> datetime | None:
        return _moment(self._purge.end_time) if self._purge.HasField("end_time") else None

    def refresh(self) -> Self:
        """Asks how far it is."""
        request = scheduler.GetPurgeRequest(project_id=self._purge.project_id, purge_id=self.id)
        self._purge = self._services.scheduler.GetPurge(request).purge
        return self

    def wait(self, timeout_s: float = 60.0) -> Self:
        """Returns once it is done. DeadlineExceeded where it takes longer: it goes on all the same."""
        deadline = time.monotonic() + timeout_s
        while self.refresh().state != "done":
            if time.monotonic() > deadline:
                why = f": {self.waiting_for}" if self.waiting_for else ""
                raise DeadlineExceeded(f"the erasure goes on, and is not done yet{why}")
            time.sleep(_POLL_S)
        return self


class ProjectPurges(ProjectBase):
    """The part of a project's handle that erases."""

    def purge(self, *, group_key: str = "", case_id: str = "", reason: str, request_id: str | None = None) -> Purge:
        """Erases a patient, named by the group or by one case: images, masks, originals, coarse labels, references.

        At once nothing of the cases is handed out or trained on any more; `Purge.wait` waits for the rest. `reason` is
        kept for good and should not name the patient. NotFound, IllegalTransition (SEED_CASE).
        """
        request = scheduler.PurgeGroupRequest(
            request_id=request_id or new_request_id(),
            project_id=self.id,
            group_key=group_key,
            case_id=case_id,
            reason=reason,
        )
        return Purge(self._services, self._services.scheduler.PurgeGroup(request).purge)

    def export(self, path: str | Path) -> Path:
        """Writes everything of the project, of all services, into one file; `Client.import_project` reads it."""
        return export_project(self._services, self.id, Path(path))

    def purges(self) -> Iterator[Purge]:
        """Every erasure of the project, newest first."""
        for page in self._pages(self._services.scheduler.ListPurges, scheduler.ListPurgesRequest):
            yield from (Purge(self._services, purge) for purge in page.purges)


def _moment(timestamp: Timestamp) -> datetime:
    return timestamp.ToDatetime(tzinfo=UTC)
