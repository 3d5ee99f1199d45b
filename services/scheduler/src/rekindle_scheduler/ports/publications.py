"""The scheduler's state: results that are owed."""

from __future__ import annotations

from typing import Protocol

from rekindle_scheduler.domain.ids import CaseId, ProjectId
from rekindle_scheduler.domain.publications import Publication, Published


class Publications(Protocol):
    """What has to be delivered of cases whose label has changed; written in the transaction that changes it."""

    def owe(self, project_id: ProjectId, case_id: CaseId) -> None:
        """The label that counts, or what is said of it, may be another one now."""
        ...

    def owed(self, *, limit: int) -> list[Publication]:
        """Of all projects, those first that have been owed, or were postponed, the longest ago."""
        ...

    def postpone(self, publication: Publication) -> None:
        """It could not be delivered: the others come first."""
        ...

    def settle(self, publication: Publication, published: Published | None) -> None:
        """It is delivered; still owed where the case has changed again since `publication` was read."""
        ...
