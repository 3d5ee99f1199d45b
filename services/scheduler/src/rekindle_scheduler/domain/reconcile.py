"""What a project needs next, decided from its durable state alone; any pass may be repeated."""

from __future__ import annotations

from dataclasses import dataclass, field

from rekindle.vocabulary import RunKind, RunState

from rekindle_scheduler.domain import steps
from rekindle_scheduler.domain.enums import DecisionBasis, ProjectState, RoundState
from rekindle_scheduler.domain.ids import ModelVersionId, run_id_for
from rekindle_scheduler.domain.records import Project, Round
from rekindle_scheduler.domain.steps import Step
from rekindle_scheduler.domain.text import counted

#: Steps after which nothing of the round has changed: the reconciler may use the time for `background_step`.
IDLE_STEPS = (steps.Wait, steps.PollRun)


@dataclass(frozen=True, kw_only=True)
class CaseTally:
    """How many cases are where. "Open" cases are in state REGISTERED, READY, LEASED or IN_REVIEW."""

    #: Number of open cases, leased ones too.
    open: int = 0
    #: Number of open cases under a live lease.
    leased: int = 0
    #: Number of open cases that wait for a reviewer.
    in_review: int = 0
    #: Number of open cases in state READY: with a coarse label and not leased.
    ready: int = 0
    #: Numbers of the open and of the ready cases that may enter training: not held out.
    open_training: int = 0
    ready_training: int = 0
    #: Number of cases selected in the working round and still open, leased or not.
    round_open: int = 0
    #: Number of accepted labels that count for the working round, selected or not.
    round_labels: int = 0
    #: Number of these labels that may enter training.
    round_training_labels: int = 0


@dataclass(frozen=True, kw_only=True)
class PredictionTally:
    """Open, unleased cases by what the version that serves has made of them."""

    #: Number of cases without a pending, done or failed task of it; a skipped task has to be queued again.
    missing: int = 0
    #: Numbers of pending tasks, and of those in the candidate pool.
    pending: int = 0
    pool_pending: int = 0
    #: Number of failed tasks of cases without any coarse label: those cases cannot be leased.
    failed_unlabelled: int = 0


@dataclass(frozen=True, kw_only=True)
class RoundHead:
    """The newest round, as far as leases and submissions need to know it."""

    number: int
    state: RoundState

    @property
    def is_open(self) -> bool:
        """Whether new submissions count for it."""
        return self.number > 0 and self.state in (RoundState.SELECTING, RoundState.ANNOTATING)


@dataclass(frozen=True, kw_only=True)
class ProjectView:
    """What a pass reads, in one transaction."""

    project: Project
    #: Rounds by number; their selected_case_ids may be left empty.
    rounds: tuple[Round, ...] = ()
    #: Counts of cases; those per round are of the working round (see `working_round`).
    cases: CaseTally = field(default_factory=CaseTally)
    predictions: PredictionTally = field(default_factory=PredictionTally)


def working_round(rounds: tuple[Round, ...]) -> Round | None:
    """The lowest round that has not closed: the one that moves. None when all have closed."""
    return min((r for r in rounds if r.state != RoundState.CLOSED), key=lambda r: r.number, default=None)


def predecessor(promoting: Round) -> ModelVersionId | None:
    """What the round's candidate took over from: what served in the round, or what that was rolled back to."""
    check = promoting.serving_check
    if check is not None and check.roll_back:
        return check.to_model_version_id
    return promoting.opening_model_version_id


def next_step(view: ProjectView) -> Step:
    """The one action that brings the project forward, or why there is none."""
    project = view.project
    if project.state == ProjectState.DRAFT:
        return steps.Wait(reason="the project has not been started")
    if project.state == ProjectState.STALLED:
        return steps.Wait(reason=project.state_reason or "the project waits for a person")
    working = working_round(view.rounds)
    if working is None:
        return _between_rounds(view)
    match working.state:
        case RoundState.SELECTING:
            return _selecting(view, working)
        case RoundState.ANNOTATING:
            return _annotating(view, working)
        case RoundState.TRAINING:
            return _training(view, working)
        case RoundState.PROMOTING:
            return _promoting(view, working)
        case _:
            return _predict_pool(view) or steps.CloseRound(round=working.number)


def background_step(view: ProjectView) -> Step | None:
    """Predictions beyond the pool, for when `next_step` has only something to wait for."""
    running = view.project.state in (ProjectState.IGNITING, ProjectState.ACTIVE)
    return _predict(view, view.predictions.pending) if running else None


def _between_rounds(view: ProjectView) -> Step:
    if view.cases.open:
        newest = max((r.number for r in view.rounds), default=-1)
        return steps.OpenRound(round=newest + 1)
    if view.project.state == ProjectState.COMPLETE:
        return steps.Wait(reason="everything is labelled")
    if view.project.registration_open:
        return steps.Wait(reason="every case is labelled: register more, or close the registration")
    return steps.CompleteProject()


def _selecting(view: ProjectView, working: Round) -> Step:
    predict = _predict_pool(view)
    if predict is not None:
        return predict
    tally = view.cases
    if tally.ready_training:
        return steps.OpenSelection(round=working.number)
    rest = _predict(view, view.predictions.pending)
    if rest is not None:
        return rest
    # Held-out cases make up a round of their own only when they are all that is left.
    if tally.ready and not tally.open_training:
        return steps.OpenSelection(round=working.number)
    if tally.leased:
        return steps.Wait(reason="every case that could be selected is leased")
    if tally.in_review:
        return steps.Wait(reason=f"{counted(tally.in_review, 'case')} in review, waiting for a reviewer")
    if view.predictions.failed_unlabelled:
        failed = view.predictions.failed_unlabelled
        return steps.Stall(
            round=working.number,
            reason=f"{counted(failed, 'case')} could not be predicted, so without a coarse label: "
            "see their reasons, then retry the project or put them off",
        )
    if tally.round_labels:
        return steps.OpenSelection(round=working.number)
    if view.project.registration_open:
        return steps.Wait(reason="no case is left to select: register more, or close the registration")
    return steps.SkipTraining(round=working.number, reason="no case was left to label")


def _annotating(view: ProjectView, working: Round) -> Step:
    tally = view.cases
    if tally.round_open and not (working.train_requested and tally.round_labels):
        waiting = f", {counted(tally.in_review, 'label')} waiting for a reviewer" if tally.in_review else ""
        return steps.Wait(reason=f"{counted(tally.round_open, 'case')} of the round not labelled yet{waiting}")
    if not tally.round_labels:
        reason = "no label counts: every selected case was put off, or its label was taken back"
        return steps.SkipTraining(round=working.number, reason=reason)
    check = working.serving_check
    if check is None and _wants_serving_check(view, working):
        return steps.CheckServing(round=working.number)
    serving = view.project.active_model_version_id
    if check is not None and check.roll_back and check.to_model_version_id not in (None, serving):
        assert check.to_model_version_id is not None
        return steps.RollBack(
            round=working.number, model_version_id=check.to_model_version_id, expected_current=serving
        )
    if not tally.round_training_labels:
        return steps.SkipTraining(
            round=working.number, reason="every label of the round is held out: nothing new to train on"
        )
    return steps.CutSnapshot(round=working.number, open_next=tally.open > 0)


def _wants_serving_check(view: ProjectView, working: Round) -> bool:
    """Only a version that was promoted on prequential Dice, and only in the round after its promotion."""
    before = next((r for r in view.rounds if r.number == working.number - 1), None)
    decision = before.decision if before is not None else None
    return decision is not None and decision.promoted and decision.basis == DecisionBasis.PREQUENTIAL


def _training(view: ProjectView, working: Round) -> Step:
    project, run = view.project, working.run
    if run is None and working.decision is not None:
        return steps.SkipTraining(round=working.number, reason=working.decision.reason)
    if run is None:
        kind = RunKind.IGNITER if working.number == 0 else RunKind.SUSTAINER
        run_id = run_id_for(project.project_id, working.number, working.run_retries)
        return steps.StartRun(round=working.number, run_id=run_id, kind=kind)
    if run.state in (RunState.FAILED, RunState.CANCELLED):
        why = run.reason or "the trainer gave no reason"
        return steps.Stall(
            round=working.number,
            reason=f"training of round {working.number} was {_ENDED[run.state]}: {why}",
        )
    if run.state != RunState.SUCCEEDED or run.result is None:
        return steps.PollRun(round=working.number, run_id=run.run_id)
    if not any(package.modality == project.target_modality for package in run.result.packages):
        modality = project.target_modality
        return steps.Stall(
            round=working.number,
            reason=f"training of round {working.number} made no package for the target's {modality}",
        )
    return steps.AdvanceRound(round=working.number, from_state=RoundState.TRAINING, to_state=RoundState.PROMOTING)


_ENDED = {RunState.FAILED: "not successful", RunState.CANCELLED: "cancelled"}


def _promoting(view: ProjectView, working: Round) -> Step:
    candidate = working.candidate_model_version_id
    if candidate is None:
        return steps.RegisterCandidate(round=working.number)
    if working.decision is None:
        return steps.DecidePromotion(round=working.number)
    serving = view.project.active_model_version_id
    if working.decision.promoted and serving != candidate:
        return steps.Activate(round=working.number, model_version_id=candidate, expected_current=serving)
    return steps.AdvanceRound(round=working.number, from_state=RoundState.PROMOTING, to_state=RoundState.PREDICTING)


def _predict_pool(view: ProjectView) -> Step | None:
    return _predict(view, view.predictions.pool_pending)


def _predict(view: ProjectView, pending: int) -> Step | None:
    serving = view.project.active_model_version_id
    if serving is None:
        return None
    if view.predictions.missing:
        return steps.EnqueuePredictions(model_version_id=serving)
    return steps.PredictBatch(model_version_id=serving) if pending else None
