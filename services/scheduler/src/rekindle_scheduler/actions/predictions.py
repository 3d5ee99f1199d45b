"""Steps of prediction: queue the open cases for a version, have the next few predicted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from itertools import islice

from rekindle.errors import DependencyUnavailable

from rekindle_scheduler.actions.services import AT_ONCE, Services, changing_project
from rekindle_scheduler.domain import steps
from rekindle_scheduler.domain.candidates import candidates
from rekindle_scheduler.domain.enums import CaseState, PredictionState
from rekindle_scheduler.domain.events import Event, EventKind
from rekindle_scheduler.domain.ids import VolumeId
from rekindle_scheduler.domain.predictions import plan_predictions
from rekindle_scheduler.domain.reconcile import ProjectView
from rekindle_scheduler.domain.records import PredictionTask, Project
from rekindle_scheduler.ports import PredictionOutcome

_MAX_ATTEMPTS = 3
_BREAKS_DOWN = (
    "inference broke off, or took too long, each time that it predicted this case: see its log and its memory"
)
#: Length of a claim, extended with each case that is done; short, so that others soon claim what a dead scheduler had.
_CLAIM = timedelta(seconds=20)


def enqueue(services: Services, view: ProjectView, step: steps.EnqueuePredictions) -> bool:
    """Whether any case was queued. Cases are written in batches, as labels of the project wait for each transaction."""
    policy, project_id = view.project.policy, view.project.project_id
    with services.state.read() as uow:
        waiting = [*candidates(policy, uow.cases.without_task(project_id, step.model_version_id))]
    tasks = plan_predictions(policy, step.model_version_id, waiting)
    with changing_project(services, view) as (uow, _):
        uow.predictions.skip_others(project_id, step.model_version_id)
    queued = False
    while batch := [*islice(tasks, AT_ONCE)]:
        with changing_project(services, view) as (uow, _):
            uow.predictions.enqueue(batch)
        queued = True
    return queued


class _InferenceLost(Exception):
    """Inference went away while it was to predict; `error` says what the caller was told."""

    def __init__(self, error: DependencyUnavailable) -> None:
        super().__init__(error.message)
        self.error = error


def predict_batch(services: Services, view: ProjectView, step: steps.PredictBatch) -> bool:
    """Whether any case was predicted or given up.

    One case may crash inference each time. After a call that broke off, cases are predicted one by one. A case at
    which inference breaks off, though it had answered just before, is given up after a few attempts.
    """
    project_id = view.project.project_id
    is_alone = project_id in services.one_by_one
    claimed = _claim(services, view, step, limit=1 if is_alone else services.prediction_batch)
    if not claimed:
        return False
    waiting = dict(claimed)
    settled = False
    try:
        if is_alone:
            services.inference.model(project_id, step.model_version_id)
        for outcome in _predict(services, view, step, list(claimed)):
            task = waiting.pop(outcome.volume_id, None)
            if task is not None:
                settled |= _settle(services, task, outcome, list(waiting.values()))
        services.one_by_one.discard(project_id)
    except _InferenceLost as broken:
        services.one_by_one.add(project_id)
        if is_alone and waiting:
            _, task = waiting.popitem()
            given_up = PredictionOutcome(volume_id=next(iter(claimed)), coarse_label=None, failure=_BREAKS_DOWN)
            if _settle(services, task, given_up, []):
                return True
        raise broken.error from None
    finally:
        if waiting:
            with services.state.write() as uow:
                # Inference said nothing of these: an outage is no fault of a case.
                uow.predictions.release(waiting.values(), were_tried=False)
    return settled


def _claim(
    services: Services, view: ProjectView, step: steps.PredictBatch, *, limit: int
) -> dict[VolumeId, PredictionTask]:
    project_id = view.project.project_id
    with services.state.write() as uow:
        tasks = uow.predictions.claim(project_id, step.model_version_id, limit=limit, until=uow.now + _CLAIM)
        return {uow.cases.get(project_id, task.case_id).volume_id: task for task in tasks}


def _predict(
    services: Services, view: ProjectView, step: steps.PredictBatch, volume_ids: list[VolumeId]
) -> Iterator[PredictionOutcome]:
    try:
        yield from services.inference.predict(view.project.project_id, step.model_version_id, volume_ids)
    except DependencyUnavailable as error:
        raise _InferenceLost(error) from None


def _settle(services: Services, task: PredictionTask, outcome: PredictionOutcome, others: list[PredictionTask]) -> bool:
    """Keep what came of one case; the claim on the others lasts on."""
    with services.state.write() as uow:
        if outcome.coarse_label is None:
            # Lock order: the project before tasks and cases. The failure is told in its history.
            uow.projects.lock(task.project_id)
        uow.predictions.extend(others, uow.now + _CLAIM)
        if uow.cases.get(task.project_id, task.case_id).state == CaseState.PURGED:
            return True  # erased while it was predicted
        case = uow.cases.lock(task.project_id, task.case_id)
        label = outcome.coarse_label
        if label is None and task.attempts + 1 < _MAX_ATTEMPTS:
            uow.predictions.release([task], were_tried=True)
            return False
        state = PredictionState.FAILED if label is None else PredictionState.DONE
        uow.predictions.finish(replace(task, state=state, reason=outcome.failure), label)
        if label is None:
            uow.events.add(
                Event(
                    project_id=task.project_id,
                    kind=EventKind.PREDICTION_FAILED,
                    message=f"a case could not be predicted: {outcome.failure}",
                    details={"case_id": task.case_id, "model_version_id": task.model_version_id},
                )
            )
        elif case.state != CaseState.LABELLED and _still_serves(uow.projects.get(task.project_id), task):
            uow.cases.set_coarse_label(task.case_id, label)
    return True


def _still_serves(project: Project, task: PredictionTask) -> bool:
    return project.active_model_version_id == task.model_version_id
