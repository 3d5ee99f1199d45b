"""One pass over one project: read, decide, carry out one step."""

from __future__ import annotations

import logging
from dataclasses import replace

from rekindle.errors import (
    Cancelled,
    CapacityExceeded,
    DeadlineExceeded,
    DependencyUnavailable,
    RekindleError,
    VersionConflict,
)
from rekindle_servicekit import context

from rekindle_scheduler.actions import models, predictions, rounds, training
from rekindle_scheduler.actions.world import World, read_view
from rekindle_scheduler.domain import steps
from rekindle_scheduler.domain.events import Event, EventKind
from rekindle_scheduler.domain.ids import ProjectId
from rekindle_scheduler.domain.reconcile import (
    IDLE_STEPS,
    ProjectView,
    background_step,
    next_step,
    working_round,
)
from rekindle_scheduler.domain.steps import Step

_log = logging.getLogger(__name__)

#: Errors that pass by themselves.
TRANSIENT = (DependencyUnavailable, CapacityExceeded, DeadlineExceeded)


#: What a person is told has failed.
_WORDS: dict[type[Step], str] = {
    steps.StartRun: "starting the training",
    steps.PollRun: "following the training",
    steps.RegisterCandidate: "registering the trained model",
    steps.Activate: "activating the model",
    steps.RollBack: "rolling the model back",
    steps.PredictBatch: "predicting",
}


def run_pass(world: World, project_id: ProjectId) -> bool:
    """Whether the project has moved, so that there may be more to do at once.

    Raises the errors of TRANSIENT, to be tried again later. Other errors of a step stall the project.
    """
    view = read_view(world.state, project_id)
    step = next_step(view)
    moved = _carry_out_safely(world, view, step)
    if moved or not isinstance(step, IDLE_STEPS):
        return moved
    beside = background_step(view)
    return beside is not None and _carry_out_safely(world, view, beside)


def note_waiting(world: World, project_id: ProjectId, why: str) -> None:
    """Write down what the working round waits for, once, however often it is tried."""
    with world.state.write() as uow:
        uow.projects.lock(project_id)
        working = working_round(tuple(uow.rounds.all(project_id)))
        if working is None or working.reason == why:
            return
        uow.rounds.update(replace(working, reason=why))
        uow.events.add(Event(project_id=project_id, kind=EventKind.WAITING, message=why, round=working.number))


def clear_waiting(world: World, project_id: ProjectId) -> None:
    """The working round does not wait any more."""
    with world.state.write() as uow:
        project = uow.projects.lock(project_id)
        working = working_round(tuple(uow.rounds.all(project_id)))
        if working is not None and working.reason and not project.state_reason:
            uow.rounds.update(replace(working, reason=""))
            message = "what it waited for is there again"
            uow.events.add(Event(project_id=project_id, kind=EventKind.RESUMED, message=message, round=working.number))


def _carry_out_safely(world: World, view: ProjectView, step: Step) -> bool:
    number = getattr(step, "round", None)
    with context.bind(project=view.project.project_id, round=number):
        try:
            moved = carry_out(world, view, step)
        except VersionConflict:
            # Somebody else was faster; the next pass sees what they did.
            return True
        except (*TRANSIENT, Cancelled):
            raise
        except RekindleError as error:
            _log.error("step failed: %s", error, extra={"action": "reconcile.failed"})
            return _stall(world, view, step, error)
        if moved:
            name = type(step).__name__
            _log.info("%s", step, extra={"action": f"reconcile.{name}"})
        return moved


def carry_out(world: World, view: ProjectView, step: Step) -> bool:
    """Whether the step has changed anything."""
    match step:
        case steps.StartRun():
            return training.start_run(world, view, step)
        case steps.PollRun():
            return training.poll_run(world, view, step)
        case steps.RegisterCandidate():
            return models.register_candidate(world, view, step)
        case steps.DecidePromotion():
            return models.decide(world, view, step)
        case steps.Activate():
            return models.activate(world, view, step)
        case steps.CheckServing():
            return models.check_serving(world, view, step)
        case steps.RollBack():
            return models.roll_back(world, view, step)
        case steps.EnqueuePredictions():
            return predictions.enqueue(world, view, step)
        case steps.PredictBatch():
            return predictions.predict_batch(world, view, step)
        case _:
            return _change_rounds(world, view, step)


def _change_rounds(world: World, view: ProjectView, step: Step) -> bool:
    match step:
        case steps.OpenRound():
            return rounds.open_round(world, view, step)
        case steps.OpenSelection():
            return rounds.open_selection(world, view, step)
        case steps.CutSnapshot():
            return rounds.cut(world, view, step)
        case steps.AdvanceRound():
            return rounds.advance(world, view, step)
        case steps.SkipTraining():
            return rounds.skip_training(world, view, step)
        case steps.CloseRound():
            return rounds.close(world, view, step)
        case steps.CompleteProject():
            return rounds.complete(world, view)
        case steps.Stall():
            return rounds.stall(world, view, step)
        case _:
            return False


def _stall(world: World, view: ProjectView, step: Step, error: RekindleError) -> bool:
    working = working_round(view.rounds)
    number = getattr(step, "round", working.number if working is not None else None)
    if number is None:
        raise error
    what = _WORDS.get(type(step), type(step).__name__)
    try:
        return rounds.stall(world, view, steps.Stall(round=number, reason=f"{what} failed: {error.message}"))
    except VersionConflict:
        return True
