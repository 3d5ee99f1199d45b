"""What actions work with, and how they change the state: only if it still is what the step was decided on."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Final

from rekindle.errors import VersionConflict

from rekindle_scheduler.domain.events import Event, EventKind
from rekindle_scheduler.domain.ids import ModelVersionId, ProjectId
from rekindle_scheduler.domain.reconcile import ProjectView, working_round
from rekindle_scheduler.domain.records import Project, Round
from rekindle_scheduler.ports import Inference, Trainer
from rekindle_scheduler.state import State, UnitOfWork

#: Number of cases that are written in one transaction, so that other transactions come in between.
AT_ONCE: Final = 5_000


@dataclass(frozen=True, kw_only=True)
class Services:
    """The ports, and how much is done at a time."""

    state: State
    inference: Inference
    trainer: Trainer
    prediction_batch: int = 4
    #: Projects whose last call for predictions broke off: their cases go one by one, until one comes through.
    one_by_one: set[ProjectId] = field(default_factory=set[ProjectId])


@dataclass(frozen=True, kw_only=True)
class StepTransaction:
    """An open transaction on a project and one of its rounds, both as the step expects them."""

    uow: UnitOfWork
    project: Project
    round: Round

    def update(self, changed: Round) -> None:
        """Store the round; its wait, if any, is over."""
        if self.round.reason:
            self.tell(EventKind.RESUMED, "what the round waited for is there again")
        self.uow.rounds.update(replace(changed, reason=""))

    def tell(
        self, kind: EventKind, message: str, *, seconds: float | None = None, cases: int | None = None, **details: str
    ) -> None:
        """Add to the project's history, under the round."""
        event = Event(
            project_id=self.project.project_id,
            kind=kind,
            message=message,
            round=self.round.number,
            seconds=seconds,
            cases=cases,
            details=details,
        )
        self.uow.events.add(event)


def read_view(state: State, project_id: ProjectId) -> ProjectView:
    """All that the next step is decided on, of one moment."""
    with state.read() as uow:
        project = uow.projects.get(project_id)
        rounds = tuple(uow.rounds.all(project_id))
        working = working_round(rounds)
        return ProjectView(
            project=project,
            rounds=rounds,
            cases=uow.tallies.cases(project_id, working.number if working is not None else 0),
            predictions=uow.tallies.predictions(project_id, project.active_model_version_id),
        )


def round_of(view: ProjectView, number: int) -> Round:
    """The round as it was read."""
    return next(round for round in view.rounds if round.number == number)


@contextmanager
def changing(services: Services, view: ProjectView, number: int) -> Generator[StepTransaction]:
    """A transaction on the project and this round. VersionConflict where either has moved on since the view."""
    with changing_project(services, view) as (uow, project):
        current = uow.rounds.get(project.project_id, number)
        if _moving_parts(current) != _moving_parts(round_of(view, number)):
            raise VersionConflict(f"round {number} has moved on", reason="STEP_OUTDATED")
        yield StepTransaction(uow=uow, project=project, round=current)


@contextmanager
def changing_project(services: Services, view: ProjectView) -> Generator[tuple[UnitOfWork, Project]]:
    """As `changing`, for steps that belong to no round."""
    with services.state.write() as uow:
        project = uow.projects.lock(view.project.project_id)
        if _pointers(project) != _pointers(view.project):
            raise VersionConflict("the project has moved on", reason="STEP_OUTDATED")
        yield uow, project


def _moving_parts(round: Round) -> Round:
    """Without what submissions change and what is written for people alone."""
    return replace(round, labelled_cases=0, labelled_total=0, reason="")


def _pointers(project: Project) -> tuple[str, ModelVersionId | None]:
    return project.state, project.active_model_version_id
