"""Steps of promotion: register a candidate, decide on it, move the serving pointer there or back."""

from __future__ import annotations

from dataclasses import replace

from rekindle.errors import VersionConflict
from rekindle.vocabulary import RunKind

from rekindle_scheduler.actions.services import Services, changing, round_of
from rekindle_scheduler.domain import steps
from rekindle_scheduler.domain.events import EventKind
from rekindle_scheduler.domain.ids import ModelVersionId, ProjectId, derived_id
from rekindle_scheduler.domain.promotion import decide_promotion, decide_roll_back
from rekindle_scheduler.domain.reconcile import ProjectView, predecessor
from rekindle_scheduler.domain.records import Submission
from rekindle_scheduler.state import UnitOfWork


def register_candidate(services: Services, view: ProjectView, step: steps.RegisterCandidate) -> bool:
    """Refused candidates are registered too, so that they can be looked at."""
    project = view.project
    run = round_of(view, step.round).run
    assert run is not None
    assert run.result is not None
    package = next(p for p in run.result.packages if p.modality == project.target_modality)
    model = services.inference.register_model(
        project.project_id,
        project.organs,
        RunKind.SUSTAINER if step.round else RunKind.IGNITER,
        package.package_digest,
        request_id=derived_id(project.project_id, f"register-{run.run_id}"),
    )
    with changing(services, view, step.round) as change:
        change.update(replace(change.round, candidate_model_version_id=model.model_version_id))
    return True


def decide(services: Services, view: ProjectView, step: steps.DecidePromotion) -> bool:
    """Keep the decision; a refusal is told at once, a promotion when it has happened."""
    with changing(services, view, step.round) as change:
        project, run = change.project, change.round.run
        serving = project.active_model_version_id
        decision = decide_promotion(
            project.policy.promotion,
            organs=[organ.id for organ in project.organs],
            current=serving,
            result=None if run is None else run.result,
            prequential=labels_started_from(change.uow, project.project_id, serving),
        )
        change.update(replace(change.round, decision=decision))
        if not decision.promoted:
            candidate = change.round.candidate_model_version_id or ""
            change.tell(
                EventKind.MODEL_REFUSED,
                f"round {step.round}: the new model is refused: {decision.reason}",
                model_version_id=candidate,
            )
    return True


def activate(services: Services, view: ProjectView, step: steps.Activate) -> bool:
    """Move the pointer to a promoted candidate."""
    _move_pointer(services, view, step.round, step.model_version_id, step.expected_current)
    with changing(services, view, step.round) as change:
        change.uow.projects.update(replace(change.project, active_model_version_id=step.model_version_id))
        change.update(change.round)
        decision = change.round.decision
        reason = decision.reason if decision is not None else ""
        change.tell(
            EventKind.MODEL_PROMOTED,
            f"round {step.round}: the new model serves: {reason}",
            model_version_id=step.model_version_id,
        )
    return True


def check_serving(services: Services, view: ProjectView, step: steps.CheckServing) -> bool:
    """Judge the version that this round's annotators corrected against the one before it."""
    before = round_of(view, step.round - 1)
    with changing(services, view, step.round) as change:
        project = change.project
        earlier = predecessor(before)
        verdict = decide_roll_back(
            project.policy.promotion,
            organs=[organ.id for organ in project.organs],
            predecessor=earlier,
            served=labels_started_from(change.uow, project.project_id, project.active_model_version_id),
            before=labels_started_from(change.uow, project.project_id, earlier),
        )
        change.update(replace(change.round, serving_check=verdict))
    return True


def roll_back(services: Services, view: ProjectView, step: steps.RollBack) -> bool:
    """Move the pointer back, and show the annotators that version's coarse labels again."""
    _move_pointer(services, view, step.round, step.model_version_id, step.expected_current)
    with changing(services, view, step.round) as change:
        uow, project_id = change.uow, change.project.project_id
        uow.projects.update(replace(change.project, active_model_version_id=step.model_version_id))
        uow.cases.show_labels_of(project_id, step.model_version_id)
        change.update(change.round)
        verdict = change.round.serving_check
        reason = verdict.reason if verdict is not None else ""
        change.tell(
            EventKind.MODEL_ROLLED_BACK,
            f"round {step.round}: back to the model before: {reason}",
            model_version_id=step.model_version_id,
        )
    return True


def _move_pointer(
    services: Services,
    view: ProjectView,
    number: int,
    version: ModelVersionId,
    expected: ModelVersionId | None,
) -> None:
    project_id = view.project.project_id
    request_id = derived_id(project_id, f"activate-{number}-{version}")
    try:
        services.inference.activate_model(project_id, version, expected_current=expected, request_id=request_id)
    except VersionConflict:
        active = services.inference.active_model(project_id)
        current = None if active is None else active.model_version_id
        if current == version:
            return
        # A person moved the pointer meanwhile. The round's decision is newer.
        request_id = derived_id(project_id, f"activate-{number}-{version}-after-{current}")
        services.inference.activate_model(project_id, version, expected_current=current, request_id=request_id)


def labels_started_from(uow: UnitOfWork, project_id: ProjectId, version: ModelVersionId | None) -> list[Submission]:
    """The labels that count and were corrected from this version's coarse labels."""
    if version is None:
        return []
    counting = uow.submissions.counting(project_id)
    return [submission for submission in counting if submission.coarse_model_version_id == version]
