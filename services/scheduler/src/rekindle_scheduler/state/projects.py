"""Projects and their seed sets in SQL."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from rekindle.errors import VersionConflict
from rekindle.vocabulary import Modality, Organ, OrganState

from rekindle_scheduler.domain.enums import ProjectState
from rekindle_scheduler.domain.ids import ProjectId, VolumeId
from rekindle_scheduler.domain.policy import Policy
from rekindle_scheduler.domain.records import Project, SeedCase
from rekindle_scheduler.state.codec import decode, decode_all, encode
from rekindle_scheduler.state.rows import Repository
from rekindle_scheduler.state.tables import projects, seed_cases

_RUNNING = (ProjectState.IGNITING, ProjectState.ACTIVE, ProjectState.COMPLETE)


class Projects(Repository):
    """Projects. `get` raises NotFound."""

    def add(self, project: Project) -> None:
        newest = self._connection.execute(sa.select(sa.func.max(projects.c.sequence))).scalar_one()
        counters = {"last_cursor": 0, "last_seed_case": 0, "last_case": 0, "last_submission": 0}
        values = {**_values(project), **counters, "sequence": (newest or 0) + 1}
        self._connection.execute(sa.insert(projects).values(values))

    def get(self, project_id: ProjectId) -> Project:
        return _project(self._one(_select(project_id), "project", project_id))

    def lock(self, project_id: ProjectId) -> Project:
        """As `get`; no other transaction changes the project before this one ends."""
        # The key stays free: a transaction that adds a lease to a case it has locked must not wait for the project,
        # whose lock may be held by a transaction that waits for that case.
        held = _select(project_id).with_for_update(key_share=True)
        return _project(self._one(held, "project", project_id))

    def page(self, *, after: int, limit: int) -> list[tuple[int, Project]]:
        statement = sa.select(projects).where(projects.c.sequence > after)
        rows = self._connection.execute(statement.order_by(projects.c.sequence).limit(limit))
        return [(row.sequence, _project(row)) for row in rows]

    def running(self) -> list[ProjectId]:
        """The projects that may have a next step."""
        statement = sa.select(projects.c.project_id).where(projects.c.state.in_(_RUNNING))
        return [ProjectId(row.project_id) for row in self._connection.execute(statement)]

    def update(self, project: Project) -> None:
        statement = sa.update(projects).where(projects.c.project_id == project.project_id)
        changed = self._connection.execute(statement.values(_values(project))).rowcount
        if changed != 1:
            raise VersionConflict(f"project {project.project_id} was changed meanwhile")


class SeedCases(Repository):
    """The seed set."""

    def add(self, seed_case: SeedCase) -> None:
        values = {
            **encode(seed_case),
            "sequence": self._take_number(seed_case.project_id, "last_seed_case"),
        }
        self._connection.execute(sa.insert(seed_cases).values(values))

    def of_image(self, project_id: ProjectId, image_volume_id: VolumeId) -> SeedCase | None:
        statement = sa.select(seed_cases).where(
            seed_cases.c.project_id == project_id, seed_cases.c.image_volume_id == image_volume_id
        )
        row = self._connection.execute(statement).one_or_none()
        return None if row is None else _seed_case(row)

    def all(self, project_id: ProjectId) -> list[SeedCase]:
        return [seed_case for _, seed_case in self.page(project_id, after=0, limit=-1)]

    def page(self, project_id: ProjectId, *, after: int, limit: int) -> list[tuple[int, SeedCase]]:
        statement = (
            sa.select(seed_cases)
            .where(seed_cases.c.project_id == project_id, seed_cases.c.sequence > after)
            .order_by(seed_cases.c.sequence)
        )
        if limit >= 0:
            statement = statement.limit(limit)
        return [(row.sequence, _seed_case(row)) for row in self._connection.execute(statement)]


def _select(project_id: ProjectId) -> sa.Select[Any]:
    return sa.select(projects).where(projects.c.project_id == project_id)


def _values(project: Project) -> dict[str, Any]:
    return {**encode(project), "create_time": project.create_time}


def _project(row: sa.Row[Any]) -> Project:
    return Project(
        project_id=row.project_id,
        display_name=row.display_name,
        organs=decode_all(Organ, row.organs),
        target_modality=Modality(row.target_modality),
        policy=decode(Policy, row.policy),
        policy_version=row.policy_version,
        state=ProjectState(row.state),
        state_reason=row.state_reason,
        registration_open=row.registration_open,
        create_time=row.create_time,
        active_model_version_id=row.active_model_version_id,
    )


def _seed_case(row: sa.Row[Any]) -> SeedCase:
    return SeedCase(
        seed_case_id=row.seed_case_id,
        project_id=row.project_id,
        modality=Modality(row.modality),
        image_volume_id=row.image_volume_id,
        mask_volume_id=row.mask_volume_id,
        receipt_id=row.receipt_id,
        image_digest=row.image_digest,
        mask_digest=row.mask_digest,
        organ_states=decode_all(OrganState, row.organ_states),
    )
