"""One pass over one project: read, decide, carry out one step."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final, cast

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
from rekindle_scheduler.actions.services import Services, read_view
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


#: Function that carries out one kind of step; it answers whether anything has changed.
Action = Callable[[Services, ProjectView, Any], bool]

#: Action of each kind of step; `Wait` has none.
_ACTIONS: Final[Mapping[type[Step], Action]] = {
    steps.OpenRound: rounds.open_round,
    steps.OpenSelection: rounds.open_selection,
    steps.CutSnapshot: rounds.cut,
    steps.AdvanceRound: rounds.advance,
    steps.SkipTraining: rounds.skip_training,
    steps.CloseRound: rounds.close,
    steps.CompleteProject: rounds.complete,
    steps.Stall: rounds.stall,
    steps.StartRun: training.start_run,
    steps.PollRun: training.poll_run,
    steps.RegisterCandidate: models.register_candidate,
    steps.DecidePromotion: models.decide,
    steps.Activate: models.activate,
    steps.CheckServing: models.check_serving,
    steps.RollBack: models.roll_back,
    steps.EnqueuePredictions: predictions.enqueue,
    steps.PredictBatch: predictions.predict_batch,
}

#: Names of the steps that may fail, for people.
_WORDS: dict[type[Step], str] = {
    steps.StartRun: "starting the training",
    steps.PollRun: "following the training",
    steps.RegisterCandidate: "registering the trained model",
    steps.Activate: "activating the model",
    steps.RollBack: "rolling the model back",
    steps.PredictBatch: "predicting",
}


def run_pass(services: Services, project_id: ProjectId) -> bool:
    """Whether the project has moved, so that there may be more to do at once.

    Raises the errors of TRANSIENT, to be tried again later. Other errors of a step stall the project.
    """
    view = read_view(services.state, project_id)
    step = next_step(view)
    moved = _carry_out_safely(services, view, step)
    if moved or not isinstance(step, IDLE_STEPS):
        return moved
    background = background_step(view)
    return background is not None and _carry_out_safely(services, view, background)


def note_waiting(services: Services, project_id: ProjectId, why: str) -> None:
    """Write down what the working round waits for, once, however often it is tried."""
    with services.state.write() as uow:
        uow.projects.lock(project_id)
        working = working_round(tuple(uow.rounds.all(project_id)))
        if working is None or working.reason == why:
            return
        uow.rounds.update(replace(working, reason=why))
        uow.events.add(Event(project_id=project_id, kind=EventKind.WAITING, message=why, round=working.number))


def clear_waiting(services: Services, project_id: ProjectId) -> None:
    """The working round does not wait any more."""
    with services.state.write() as uow:
        project = uow.projects.lock(project_id)
        working = working_round(tuple(uow.rounds.all(project_id)))
        if working is not None and working.reason and not project.state_reason:
            uow.rounds.update(replace(working, reason=""))
            message = "what it waited for is there again"
            uow.events.add(Event(project_id=project_id, kind=EventKind.RESUMED, message=message, round=working.number))


def _carry_out_safely(services: Services, view: ProjectView, step: Step) -> bool:
    number = getattr(step, "round", None)
    with context.bind(project=view.project.project_id, round=number):
        try:
            moved = carry_out(services, view, step)
        except VersionConflict:
            # Another scheduler was faster; the next pass sees its step.
            return True
        except (*TRANSIENT, Cancelled):
            raise
        except RekindleError as error:
            _log.error("step failed: %s", error, extra={"action": "reconcile.failed"})
            return _stall(services, view, step, error)
        if moved:
            name = type(step).__name__
            _log.info("%s", step, extra={"action": f"reconcile.{name}"})
        return moved


def carry_out(services: Services, view: ProjectView, step: Step) -> bool:
    """Whether the step has changed anything."""
    action = cast("Action | None", _ACTIONS.get(type(step)))
    return action is not None and action(services, view, step)


def _stall(services: Services, view: ProjectView, step: Step, error: RekindleError) -> bool:
    working = working_round(view.rounds)
    number = getattr(step, "round", working.number if working is not None else None)
    if number is None:
        raise error
    what = _WORDS.get(type(step), type(step).__name__)
    try:
        return rounds.stall(services, view, steps.Stall(round=number, reason=f"{what} failed: {error.message}"))
    except VersionConflict:
        return True
