"""Steps of training: start a round's run, see how it goes."""

from __future__ import annotations

from dataclasses import replace

from rekindle.errors import AlreadyExists, NotFound
from rekindle.vocabulary import Digest, RunState

from rekindle_scheduler.actions.services import Services, changing, round_of
from rekindle_scheduler.domain import steps
from rekindle_scheduler.domain.events import EventKind
from rekindle_scheduler.domain.reconcile import ProjectView
from rekindle_scheduler.domain.records import Project, Snapshot, TrainingRun
from rekindle_scheduler.domain.text import counted
from rekindle_scheduler.ports import RunLimits, RunRequest

_SEEDS_PER_PROJECT = 1000
_WORDS = {
    RunState.QUEUED: "training waits",
    RunState.RUNNING: "training runs",
    RunState.PREEMPTED: "training was interrupted and will go on",
    RunState.SUCCEEDED: "training has succeeded",
    RunState.FAILED: "training has failed",
    RunState.CANCELLED: "training was cancelled",
}


def start_run(services: Services, view: ProjectView, step: steps.StartRun) -> bool:
    """The run's id and content were fixed beforehand, so starting it again finds it."""
    request = _request(services, view, step)
    try:
        run = services.trainer.start_run(request)
    except AlreadyExists:
        # Started before the policy's training part was changed: that run counts.
        run = services.trainer.run(view.project.project_id, step.run_id)
    with changing(services, view, step.round) as change:
        change.update(replace(change.round, run=run))
        change.tell(
            EventKind.TRAINING_STARTED,
            f"round {step.round}: the {step.kind} is trained on {counted(len(request.training), 'case')}",
            run_id=step.run_id,
        )
    return True


def poll_run(services: Services, view: ProjectView, step: steps.PollRun) -> bool:
    """Whether anything is new."""
    last = round_of(view, step.round).run
    try:
        run = services.trainer.run(view.project.project_id, step.run_id)
    except NotFound:
        # The trainer has lost it: the same run, started again, comes to the same result.
        run = None
    is_new = run != last
    if is_new:
        _note_run(services, view, step, run)
    if run is not None:
        # Afterwards, so that a trainer that knows no limits yet is followed all the same.
        _pass_limits_on(services, view.project, run)
    return is_new


def _note_run(services: Services, view: ProjectView, step: steps.PollRun, run: TrainingRun | None) -> None:
    last = round_of(view, step.round).run
    with changing(services, view, step.round) as change:
        change.update(replace(change.round, run=run))
        if run is not None and _is_news(last, run):
            message = f"round {step.round}: {_WORDS[run.state]}" + (f": {run.reason}" if run.reason else "")
            change.tell(EventKind.TRAINING_PROGRESS, message, run_id=step.run_id, state=run.state)


def _is_news(last: TrainingRun | None, run: TrainingRun) -> bool:
    """What people are told: another state, and another reason for waiting."""
    waits = run.state in (RunState.QUEUED, RunState.PREEMPTED)
    return last is None or run.state != last.state or (waits and run.reason != last.reason)


def _pass_limits_on(services: Services, project: Project, run: TrainingRun) -> None:
    """Pass the limits of a changed policy to the trainer; a policy that never had limits is not passed on."""
    limits = _limits(project)
    is_any = limits.window is not None or limits.gpu_seconds_budget > 0
    if run.limits_version < limits.version and (is_any or run.limits_version):
        services.trainer.limit(project.project_id, limits)


def _limits(project: Project) -> RunLimits:
    training = project.policy.training
    return RunLimits(
        version=project.policy_version, window=training.window, gpu_seconds_budget=training.gpu_seconds_budget
    )


def _request(services: Services, view: ProjectView, step: steps.StartRun) -> RunRequest:
    project = view.project
    training = project.policy.training
    snapshot = _snapshot(services, view, step.round)
    serving = project.active_model_version_id
    package = None
    if serving is not None:
        package = services.inference.model(project.project_id, serving).package_digest
    return RunRequest(
        run_id=step.run_id,
        project_id=project.project_id,
        kind=step.kind,
        preset=training.preset,
        recipe=training.recipe,
        seed=training.seed * _SEEDS_PER_PROJECT + step.round,
        modality=project.target_modality,
        organs=project.organs,
        training=snapshot.training,
        heldout=snapshot.heldout,
        initial_weights=_serving_weights(view) if training.recipe == "default" else None,
        current_package=package,
        largest_component=project.policy.largest_component,
        limits=_limits(project),
    )


def _snapshot(services: Services, view: ProjectView, number: int) -> Snapshot:
    with services.state.read() as uow:
        snapshot = uow.rounds.snapshot(view.project.project_id, number)
    if snapshot is None:
        raise NotFound(f"round {number} has no snapshot", reason="SNAPSHOT_NOT_FOUND")
    return snapshot


def _serving_weights(view: ProjectView) -> Digest | None:
    """Of the sustainer that serves; None while an igniter does."""
    serving = view.project.active_model_version_id
    for round in view.rounds:
        if round.number and serving is not None and round.candidate_model_version_id == serving:
            return round.run.result.weights_digest if round.run and round.run.result else None
    return None
