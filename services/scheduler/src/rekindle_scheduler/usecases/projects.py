"""Projects: create, look at, start, change the policy, close the registration, try again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from uuid import uuid4

from rekindle.errors import FieldViolation, IllegalTransition, InvalidInput, VersionConflict
from rekindle.vocabulary import Modality, Organ, RunState
from rekindle_servicekit.principal import Principal

from rekindle_scheduler.domain.enums import ProjectState, RoundState
from rekindle_scheduler.domain.events import Event, EventKind
from rekindle_scheduler.domain.held_out import held_out_at_close
from rekindle_scheduler.domain.ids import ProjectId
from rekindle_scheduler.domain.policy import Policy, validate_policy
from rekindle_scheduler.domain.reconcile import working_round
from rekindle_scheduler.domain.records import Project, Round
from rekindle_scheduler.domain.snapshot import seed_snapshot
from rekindle_scheduler.domain.text import counted
from rekindle_scheduler.ports import ModelVersion
from rekindle_scheduler.state import CaseCounts, UnitOfWork
from rekindle_scheduler.usecases.organs import check_organs, refuse

_MAX_NAME = 200


@dataclass(frozen=True, kw_only=True)
class ProjectDetails:
    """A project with what is counted of it."""

    project: Project
    counts: CaseCounts
    current_round: int


def create_project(
    uow: UnitOfWork,
    principal: Principal,
    *,
    display_name: str,
    organs: Sequence[Organ],
    target_modality: Modality,
    policy: Policy,
) -> ProjectDetails:
    """A new project in state DRAFT."""
    named = display_name.strip()
    if not named or len(named) > _MAX_NAME:
        refuse(
            "the project needs a name",
            [FieldViolation("display_name", f"must have 1 to {_MAX_NAME} characters")],
        )
    check_organs(organs)
    validate_policy(policy)
    project = Project(
        project_id=ProjectId(str(uuid4())),
        display_name=named,
        organs=tuple(organs),
        target_modality=target_modality,
        policy=policy,
        create_time=uow.now,
    )
    uow.projects.add(project)
    uow.annotators.find_or_add(principal)
    _tell(uow, project.project_id, EventKind.PROJECT_CREATED, "the project was created")
    return project_details(uow, project.project_id)


def project_details(uow: UnitOfWork, project_id: ProjectId) -> ProjectDetails:
    """The project as it is now."""
    return _details(uow, uow.projects.get(project_id))


def list_projects(uow: UnitOfWork, *, after: int, limit: int) -> list[tuple[int, ProjectDetails]]:
    """Projects in the order of their creation, each with its place in it."""
    return [(place, _details(uow, project)) for place, project in uow.projects.page(after=after, limit=limit)]


def start_project(uow: UnitOfWork, project_id: ProjectId, igniter: ModelVersion | None) -> ProjectDetails:
    """From DRAFT to IGNITING; with `igniter` its training is left out."""
    project = uow.projects.lock(project_id)
    if project.state != ProjectState.DRAFT:
        raise IllegalTransition(
            f"the project is {project.state.upper()}: only a DRAFT project can be started",
            reason="PROJECT_STARTED",
        )
    seeds = uow.seed_cases.all(project_id)
    if igniter is None and not seeds:
        raise IllegalTransition(
            "the project has no seed case to train the igniter on: add some, or name a registered model",
            reason="NO_SEED_CASES",
        )
    if igniter is not None:
        _check_igniter(project, igniter)
    first = Round(
        project_id=project_id,
        number=0,
        state=RoundState.TRAINING if igniter is None else RoundState.PROMOTING,
        candidate_model_version_id=None if igniter is None else igniter.model_version_id,
        start_time=uow.now,
    )
    if igniter is None:
        snapshot = seed_snapshot(seeds, uow.cases.held_out(project_id))
        uow.rounds.add_snapshot(project_id, 0, snapshot)
        first = replace(first, snapshot_digest=snapshot.digest)
    uow.rounds.add(first)
    uow.projects.update(replace(project, state=ProjectState.IGNITING))
    _tell(uow, project_id, EventKind.PROJECT_STARTED, "the project was started")
    return project_details(uow, project_id)


def update_policy(uow: UnitOfWork, project_id: ProjectId, policy: Policy, policy_version: int) -> ProjectDetails:
    """A new policy; VersionConflict where `policy_version` is not the current one."""
    project = uow.projects.lock(project_id)
    if policy_version != project.policy_version:
        raise VersionConflict(
            f"the policy is at version {project.policy_version}, not {policy_version}: read it again",
            metadata={"policy_version": str(project.policy_version)},
        )
    validate_policy(policy)
    _check_fixed_parts(uow, project, policy)
    version = project.policy_version + 1
    uow.projects.update(replace(project, policy=policy, policy_version=version))
    _tell(uow, project_id, EventKind.POLICY_UPDATED, f"the policy is at version {version}")
    return project_details(uow, project_id)


def close_registration(uow: UnitOfWork, project_id: ProjectId) -> ProjectDetails:
    """No more cases; draws the held-out number. Closing what is closed changes nothing."""
    project = uow.projects.lock(project_id)
    if project.registration_open:
        if project.policy.held_out.number:
            trained = uow.submissions.frozen_cases(project_id)
            drawn = held_out_at_close(project.policy, uow.cases.all(project_id), trained)
            uow.cases.set_held_out(sorted(drawn))
        uow.projects.update(replace(project, registration_open=False))
        counts = uow.tallies.counts(project_id)
        message = f"{counted(counts.registered, 'case')} registered, {counts.held_out} of them held out"
        _tell(uow, project_id, EventKind.REGISTRATION_CLOSED, message)
    return project_details(uow, project_id)


def retry_project(uow: UnitOfWork, project_id: ProjectId) -> ProjectDetails:
    """From STALLED back to work: a failed run is started again, failed predictions are made again."""
    project = uow.projects.lock(project_id)
    if project.state != ProjectState.STALLED:
        raise IllegalTransition(
            f"the project is {project.state.upper()}: only a STALLED project can be tried again",
            reason="PROJECT_NOT_STALLED",
        )
    working = working_round(tuple(uow.rounds.all(project_id)))
    if working is not None:
        uow.rounds.update(_without_failed_run(working))
    uow.predictions.retry_failed(project_id)
    state = ProjectState.IGNITING if working is not None and working.number == 0 else ProjectState.ACTIVE
    uow.projects.update(replace(project, state=state, state_reason=""))
    _tell(uow, project_id, EventKind.RETRIED, "the failed step is tried again")
    return project_details(uow, project_id)


def _tell(uow: UnitOfWork, project_id: ProjectId, kind: EventKind, message: str) -> None:
    uow.events.add(Event(project_id=project_id, kind=kind, message=message))


def _without_failed_run(working: Round) -> Round:
    run = working.run
    succeeded = run is not None and run.state == RunState.SUCCEEDED
    if run is None or (succeeded and working.state != RoundState.TRAINING):
        return replace(working, reason="")
    return replace(working, run=None, run_retries=working.run_retries + 1, reason="")


def _details(uow: UnitOfWork, project: Project) -> ProjectDetails:
    newest = uow.rounds.newest(project.project_id)
    return ProjectDetails(
        project=project,
        counts=uow.tallies.counts(project.project_id),
        current_round=0 if newest is None else newest.number,
    )


def _check_igniter(project: Project, igniter: ModelVersion) -> None:
    expected = [(organ.id, organ.label_value) for organ in project.organs]
    actual = [(organ.id, organ.label_value) for organ in igniter.organs]
    if expected != actual or igniter.modality != project.target_modality:
        raise InvalidInput(
            "the model predicts other organs, or another modality, than the project has",
            reason="MODEL_MISMATCH",
            violations=[FieldViolation("igniter_model_version_id", "must fit the project")],
        )


def _check_fixed_parts(uow: UnitOfWork, project: Project, policy: Policy) -> None:
    """The held-out set does not change once it has been drawn, so neither does what it was drawn by."""
    old, new = project.policy, policy
    if (old.held_out.fraction, old.held_out.number, old.training.seed) == (
        new.held_out.fraction,
        new.held_out.number,
        new.training.seed,
    ):
        return
    counts = uow.tallies.counts(project.project_id)
    drawn_at_registration = old.held_out.number is None or new.held_out.number is None
    if counts.registered and (drawn_at_registration or not project.registration_open):
        raise IllegalTransition(
            "cases have been held out by this policy's size and seed already: both must stay as they are",
            reason="HELD_OUT_DRAWN",
        )
