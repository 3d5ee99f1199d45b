"""Steps of rounds: open, select, cut, advance, close; and the project's end or stop."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import islice

from rekindle.errors import NotFound, VersionConflict

from rekindle_scheduler.actions.services import AT_ONCE, Services, StepTransaction, changing, changing_project
from rekindle_scheduler.domain import steps
from rekindle_scheduler.domain.candidates import Candidate, candidates, rank
from rekindle_scheduler.domain.enums import CaseState, DecisionBasis, ProjectState, RoundState
from rekindle_scheduler.domain.events import Event, EventKind
from rekindle_scheduler.domain.ids import ProjectId
from rekindle_scheduler.domain.reconcile import ProjectView
from rekindle_scheduler.domain.records import PromotionDecision, Round
from rekindle_scheduler.domain.selection import select_cases
from rekindle_scheduler.domain.snapshot import cut_snapshot
from rekindle_scheduler.domain.text import counted
from rekindle_scheduler.state import UnitOfWork
from rekindle_scheduler.usecases.ledger import minutes_factor
from rekindle_scheduler.usecases.rounds import begin_round

_DONE = (CaseState.LABELLED, CaseState.PUT_OFF)


def open_round(services: Services, view: ProjectView, step: steps.OpenRound) -> bool:
    """Create the round; a complete project becomes active again."""
    with changing_project(services, view) as (uow, project):
        _add_round(uow, project.project_id, step.round)
        if project.state != ProjectState.ACTIVE:
            uow.projects.update(replace(project, state=ProjectState.ACTIVE))
    return True


def open_selection(services: Services, view: ProjectView, step: steps.OpenSelection) -> bool:
    """Write the selection, once. Cases are ranked before, so that labels of the project need not wait for that."""
    policy, project_id = view.project.policy, view.project.project_id
    with services.state.read() as uow:
        unlabelled = [*candidates(policy, uow.cases.unlabelled(project_id))]
        factor = minutes_factor(uow, project_id)
    others_open = sum(_may_come_later(case) for case in unlabelled)
    selected = select_cases(policy, step.round, unlabelled, others_open=others_open, minutes_factor=factor)
    case_ids = tuple(case.case_id for case in selected)
    _write_ordering(services, unlabelled)
    with changing(services, view, step.round) as change:
        uow, project = change.uow, change.project
        if project.policy_version != view.project.policy_version:
            raise VersionConflict("the policy was changed meanwhile", reason="STEP_OUTDATED")
        uow.cases.set_round(case_ids, step.round)
        change.update(
            replace(
                change.round,
                state=RoundState.ANNOTATING,
                selected_case_ids=case_ids,
                opening_model_version_id=project.active_model_version_id,
            )
        )
        message = f"round {step.round} hands out {counted(len(case_ids), 'case')}"
        change.tell(EventKind.ROUND_OPENED, message, cases=len(case_ids))
    return True


def _write_ordering(services: Services, unlabelled: Iterable[Candidate]) -> None:
    """The order in which cases are listed; no step depends on it."""
    ranked = iter([case.case_id for case in rank(unlabelled)])
    first = 0
    while batch := [*islice(ranked, AT_ONCE)]:
        with services.state.write() as uow:
            uow.cases.set_ordering(batch, first=first)
        first += len(batch)


def cut(services: Services, view: ProjectView, step: steps.CutSnapshot) -> bool:
    """Freeze the labels and open the round for the labels to come, in one transaction."""
    with changing(services, view, step.round) as change:
        uow, project = change.uow, change.project
        by_id = {case.case_id: case for case in uow.cases.labelled(project.project_id)}
        counting = uow.submissions.counting(project.project_id)
        labelled = [(by_id[submission.case_id], submission) for submission in counting]
        held_out = uow.cases.held_out(project.project_id)
        snapshot = cut_snapshot(project, labelled, uow.seed_cases.all(project.project_id), held_out)
        uow.rounds.add_snapshot(project.project_id, step.round, snapshot)
        held = {example.case_id for example in (*snapshot.training, *snapshot.heldout)}
        left_out = [case.case_id for case, _ in labelled if case.case_id not in held]
        uow.submissions.freeze(project.project_id, step.round, left_out)
        change.update(replace(change.round, state=RoundState.TRAINING, snapshot_digest=snapshot.digest))
        trained_on = counted(len(snapshot.training), "case")
        change.tell(
            EventKind.LABELS_FROZEN,
            f"round {step.round}: {trained_on} to train on, {len(snapshot.heldout)} held out",
            snapshot_digest=snapshot.digest,
        )
        if step.open_next:
            _add_round(uow, project.project_id, step.round + 1)
    return True


def advance(services: Services, view: ProjectView, step: steps.AdvanceRound) -> bool:
    """Move the round on."""
    with changing(services, view, step.round) as change:
        if change.round.state != step.from_state:
            raise VersionConflict(f"round {step.round} has moved on", reason="STEP_OUTDATED")
        change.update(replace(change.round, state=step.to_state))
    return True


def skip_training(services: Services, view: ProjectView, step: steps.SkipTraining) -> bool:
    """Close the round with the version that serves."""
    decision = PromotionDecision(promoted=False, reason=step.reason, basis=DecisionBasis.PREQUENTIAL)
    with changing(services, view, step.round) as change:
        _close(change, replace(change.round, decision=decision), f"without training: {step.reason}")
    return True


def close(services: Services, view: ProjectView, step: steps.CloseRound) -> bool:
    """Close the round; with round 0 the igniter's part ends."""
    with changing(services, view, step.round) as change:
        _close(change, change.round, "its coarse labels are ready")
        if change.project.state == ProjectState.IGNITING:
            change.uow.projects.update(replace(change.project, state=ProjectState.ACTIVE))
    return True


def complete(services: Services, view: ProjectView, _: steps.CompleteProject) -> bool:
    """Everything is labelled."""
    with changing_project(services, view) as (uow, project):
        counts = uow.tallies.counts(project.project_id)
        if project.registration_open or uow.tallies.cases(project.project_id, 0).open:
            raise VersionConflict("there are cases to label again", reason="STEP_OUTDATED")
        uow.projects.update(replace(project, state=ProjectState.COMPLETE))
        newest = uow.rounds.newest(project.project_id)
        uow.events.add(
            Event(
                project_id=project.project_id,
                kind=EventKind.PROJECT_COMPLETE,
                message=f"{counted(counts.labelled, 'case')} labelled",
                round=0 if newest is None else newest.number,
            )
        )
    return True


def stall(services: Services, view: ProjectView, step: steps.Stall) -> bool:
    """Stop until a person has looked at it."""
    with changing(services, view, step.round) as change:
        change.uow.projects.update(replace(change.project, state=ProjectState.STALLED, state_reason=step.reason))
        change.uow.rounds.update(replace(change.round, reason=step.reason))
        change.tell(EventKind.STALLED, step.reason)
    return True


def _add_round(uow: UnitOfWork, project_id: ProjectId, number: int) -> None:
    try:
        uow.rounds.get(project_id, number)
    except NotFound:
        begin_round(uow, project_id, number)


def _close(change: StepTransaction, closing: Round, how: str) -> None:
    serving = change.project.active_model_version_id
    change.update(
        replace(
            closing,
            state=RoundState.CLOSED,
            serving_model_version_id=serving,
            end_time=change.uow.now,
        )
    )
    change.tell(
        EventKind.ROUND_CLOSED,
        f"round {closing.number} is closed: {how}",
        model_version_id=serving or "",
        seconds=(change.uow.now - closing.start_time).total_seconds(),
    )


def _may_come_later(case: Candidate) -> bool:
    return not case.held_out and case.state != CaseState.READY and case.state not in _DONE
