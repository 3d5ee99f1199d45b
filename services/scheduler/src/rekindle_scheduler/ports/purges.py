"""What erasing needs of the state."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from rekindle_scheduler.domain.ids import Digest, ProjectId
from rekindle_scheduler.domain.purges import Purge, PurgeId
from rekindle_scheduler.domain.records import Snapshot


class Purges(Protocol):
    """Erasures, and the rows that they change. `get` raises NotFound."""

    def add(self, purge: Purge) -> None: ...

    def get(self, project_id: ProjectId, purge_id: PurgeId) -> Purge: ...

    def lock(self, purge: Purge) -> Purge:
        """As `get`; nobody else changes it before this transaction ends."""
        ...

    def update(self, purge: Purge) -> None: ...

    def erasing(self) -> list[Purge]:
        """Of all projects, those that have not ended, oldest first."""
        ...

    def page(self, project_id: ProjectId, *, before: int | None, limit: int) -> list[tuple[int, Purge]]:
        """Newest first."""
        ...

    def tombstone(self, purge: Purge) -> int:
        """Leave nothing of the cases but ids, minutes and tombstones; how many submissions they had."""
        ...

    def replace_snapshot(self, project_id: ProjectId, round: int, snapshot: Snapshot) -> None: ...

    def strike(self, project_id: ProjectId, digests: Collection[Digest]) -> None:
        """Replace digests wherever the project's rows or answers that are kept have them."""
        ...
