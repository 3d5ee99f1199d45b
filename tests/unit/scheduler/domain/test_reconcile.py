"""The next step, state by state."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from rekindle.vocabulary import Modality, RunKind, RunPackage, RunResult, RunState
from rekindle_scheduler.domain import steps
from rekindle_scheduler.domain.enums import DecisionBasis, ProjectState, RoundState
from rekindle_scheduler.domain.ids import run_id_for
from rekindle_scheduler.domain.reconcile import (
    CaseTally,
    PredictionTally,
    ProjectView,
    background_step,
    next_step,
    working_round,
)
from rekindle_scheduler.domain.records import PromotionDecision, RollBackDecision, TrainingRun
from scheduler_world import open_round

SELECTING, ANNOTATING, TRAINING, PROMOTING, PREDICTING, CLOSED = RoundState


def view(make: SimpleNamespace, *rounds, cases=(), predictions=(), **project) -> ProjectView:
    values = {"active_model_version_id": "v1"} | project
    return ProjectView(
        project=make.project(**values),
        rounds=tuple(rounds),
        cases=CaseTally(**dict(cases)),
        predictions=PredictionTally(**dict(predictions)),
    )


def run(state: RunState, modality: Modality | None = None, reason: str = "") -> TrainingRun:
    result = None
    if modality is not None:
        package = RunPackage(modality=modality, package_digest="d")
        result = RunResult(packages=(package,), weights_digest="w")
    return TrainingRun(run_id="r", state=state, reason=reason, result=result)


def decision(promoted: bool = True, basis: DecisionBasis = DecisionBasis.PREQUENTIAL) -> PromotionDecision:
    return PromotionDecision(promoted=promoted, reason="", basis=basis)


@pytest.mark.parametrize("state", [ProjectState.DRAFT, ProjectState.STALLED])
@pytest.mark.parametrize("number_state", [None, SELECTING, ANNOTATING, TRAINING, PROMOTING, PREDICTING])
def test_nothing_moves_before_the_start_or_while_stalled(make: SimpleNamespace, state, number_state):
    """A draft and a stalled project wait, with words, whatever their rounds need."""
    rounds = [make.round(1, number_state)] if number_state else []
    seen = view(make, *rounds, state=state, predictions={"missing": 4}, cases={"open": 4})
    step = next_step(seen)
    assert isinstance(step, steps.Wait)
    assert step.reason
    assert background_step(seen) is None


@pytest.mark.parametrize(
    ("cases", "registration_open", "expected"),
    [
        ({"open": 3}, True, steps.OpenRound(round=2)),
        ({"open": 3}, False, steps.OpenRound(round=2)),
        ({}, True, steps.Wait(reason="every case is labelled: register more, or close the registration")),
        ({}, False, steps.CompleteProject()),
    ],
)
def test_between_rounds(make: SimpleNamespace, cases, registration_open: bool, expected):
    """With open cases another round follows; without, the project waits for registration or is complete."""
    seen = view(make, make.round(0, CLOSED), make.round(1, CLOSED), cases=cases, registration_open=registration_open)
    step = next_step(seen)
    assert expected == step


def test_complete_projects_rest_until_a_case_comes_back(make: SimpleNamespace):
    """A case whose mark is cleared opens one more round."""
    done = {"state": ProjectState.COMPLETE, "registration_open": False}
    assert steps.Wait(reason="everything is labelled") == next_step(view(make, make.round(0, CLOSED), **done))
    assert steps.OpenRound(round=1) == next_step(view(make, make.round(0, CLOSED), cases={"open": 1}, **done))


ALL_LEASED = steps.Wait(reason="every case that could be selected is leased")
NOTHING_LEFT = steps.Wait(reason="no case is left to select: register more, or close the registration")
NOT_PREDICTED = steps.Stall(
    round=1,
    reason="5 cases could not be predicted, so without a coarse label: "
    "see their reasons, then retry the project or put them off",
)


@pytest.mark.parametrize(
    ("cases", "predictions", "registration_open", "expected"),
    [
        (
            {"open": 9, "ready": 9, "ready_training": 9},
            {"missing": 2},
            False,
            steps.EnqueuePredictions(model_version_id="v1"),
        ),
        ({"open": 9}, {"pending": 5, "pool_pending": 1}, False, steps.PredictBatch(model_version_id="v1")),
        ({"open": 9, "ready": 4, "ready_training": 4}, {"pending": 5}, False, steps.OpenSelection(round=1)),
        ({"open": 9, "leased": 4}, {"pending": 5}, False, steps.PredictBatch(model_version_id="v1")),
        ({"open": 4, "leased": 4}, {}, False, ALL_LEASED),
        ({"open": 9, "ready": 3, "open_training": 6, "leased": 6}, {}, False, ALL_LEASED),
        ({"open": 9, "ready": 3, "open_training": 6, "ready_training": 1}, {}, False, steps.OpenSelection(round=1)),
        ({"open": 3, "ready": 3}, {}, False, steps.OpenSelection(round=1)),
        ({"open": 3, "ready": 2}, {"pending": 1}, False, steps.PredictBatch(model_version_id="v1")),
        ({"open": 5}, {"pending": 5}, False, steps.PredictBatch(model_version_id="v1")),
        ({"open": 5}, {"failed_unlabelled": 5}, False, NOT_PREDICTED),
        ({"round_labels": 2}, {}, False, steps.OpenSelection(round=1)),
        ({}, {}, True, NOTHING_LEFT),
        ({}, {}, False, steps.SkipTraining(round=1, reason="no case was left to label")),
    ],
)
def test_selecting(make: SimpleNamespace, cases, predictions, registration_open, expected):
    """The pool's coarse labels come first; then the selection, or the reason why there is none."""
    rounds = [make.round(0, CLOSED), make.round(1, SELECTING)]
    step = next_step(view(make, *rounds, cases=cases, predictions=predictions, registration_open=registration_open))
    assert expected == step


@pytest.mark.parametrize(
    ("train_requested", "cases", "expected"),
    [
        (
            False,
            {"open": 9, "round_open": 1, "round_labels": 3, "round_training_labels": 3},
            steps.Wait(reason="1 case of the round not labelled yet"),
        ),
        (True, {"open": 9, "round_open": 3}, steps.Wait(reason="3 cases of the round not labelled yet")),
        (
            True,
            {"open": 9, "round_open": 3, "round_labels": 1, "round_training_labels": 1},
            steps.CutSnapshot(round=1, open_next=True),
        ),
        (
            False,
            {"open": 9, "round_labels": 4, "round_training_labels": 3},
            steps.CutSnapshot(round=1, open_next=True),
        ),
        (False, {"round_labels": 4, "round_training_labels": 3}, steps.CutSnapshot(round=1, open_next=False)),
        (
            False,
            {"open": 1, "leased": 1, "round_labels": 4, "round_training_labels": 3},
            steps.CutSnapshot(round=1, open_next=True),
        ),
        (
            False,
            {"open": 9, "round_labels": 4},
            steps.SkipTraining(round=1, reason="every label of the round is held out: nothing new to train on"),
        ),
        (
            False,
            {"open": 9},
            steps.SkipTraining(
                round=1, reason="no label counts: every selected case was put off, or its label was taken back"
            ),
        ),
    ],
)
def test_annotating(make: SimpleNamespace, train_requested: bool, cases, expected):
    """A round ends when its cases are in or on request with a label; held-out labels alone train nothing."""
    working = make.round(1, ANNOTATING, train_requested=train_requested)
    step = next_step(view(make, make.round(0, CLOSED), working, cases=cases))
    assert expected == step


FULL = {"open": 5, "round_labels": 4, "round_training_labels": 4}
CUT = steps.CutSnapshot(round=2, open_next=True)


@pytest.mark.parametrize(
    ("before", "check", "serving", "expected"),
    [
        (decision(), None, "v2", steps.CheckServing(round=2)),
        (decision(promoted=False), None, "v1", CUT),
        (decision(basis=DecisionBasis.HELD_OUT), None, "v2", CUT),
        (decision(basis=DecisionBasis.FIRST), None, "v1", CUT),
        (decision(), RollBackDecision(roll_back=False, reason=""), "v2", CUT),
        (
            decision(),
            RollBackDecision(roll_back=True, reason="", to_model_version_id="v1"),
            "v2",
            steps.RollBack(round=2, model_version_id="v1", expected_current="v2"),
        ),
        (decision(), RollBackDecision(roll_back=True, reason="", to_model_version_id="v1"), "v1", CUT),
    ],
)
def test_prequential_promotions_are_checked_in_the_round_after(make: SimpleNamespace, before, check, serving, expected):
    """Check once, roll back if the check says so, then train."""
    rounds = [make.round(1, CLOSED, decision=before), make.round(2, ANNOTATING, serving_check=check)]
    assert expected == next_step(view(make, *rounds, cases=FULL, active_model_version_id=serving))


@pytest.mark.parametrize(
    ("number", "changes", "expected"),
    [
        (0, {}, RunKind.IGNITER),
        (1, {}, RunKind.SUSTAINER),
        (1, {"run_retries": 2}, RunKind.SUSTAINER),
    ],
)
def test_training_starts_a_run(make: SimpleNamespace, number: int, changes, expected: RunKind):
    """Round 0 trains the igniter, others the sustainer, each try under an id of its own."""
    run_id = run_id_for(make.project_id, number, changes.get("run_retries", 0))
    step = next_step(view(make, make.round(number, TRAINING, **changes)))
    assert steps.StartRun(round=number, run_id=run_id, kind=expected) == step


@pytest.mark.parametrize("state", [RunState.QUEUED, RunState.RUNNING, RunState.PREEMPTED])
def test_training_polls_its_run(make: SimpleNamespace, state: RunState):
    """Until the run has ended there is only asking."""
    assert steps.PollRun(round=1, run_id="r") == next_step(view(make, make.round(1, TRAINING, run=run(state))))


def test_training_ends(make: SimpleNamespace):
    """A result leads to promotion; the success without a result is asked for again."""
    done = make.round(1, TRAINING, run=run(RunState.SUCCEEDED, Modality.CT))
    assert steps.AdvanceRound(round=1, from_state=TRAINING, to_state=PROMOTING) == next_step(view(make, done))
    bare = make.round(1, TRAINING, run=run(RunState.SUCCEEDED))
    assert steps.PollRun(round=1, run_id="r") == next_step(view(make, bare))


@pytest.mark.parametrize(
    ("ended", "words"),
    [
        (run(RunState.FAILED, reason="loss is not finite"), "loss is not finite"),
        (run(RunState.CANCELLED), "cancelled"),
        (run(RunState.SUCCEEDED, Modality.MR), "no package for the target's CT"),
    ],
)
def test_training_stalls(make: SimpleNamespace, ended: TrainingRun, words: str):
    """A run that gave nothing to serve stops the project, with the reason."""
    step = next_step(view(make, make.round(1, TRAINING, run=ended)))
    assert isinstance(step, steps.Stall)
    assert words in step.reason


@pytest.mark.parametrize(
    ("changes", "serving", "expected"),
    [
        ({}, "v1", steps.RegisterCandidate(round=1)),
        ({"candidate_model_version_id": "v2"}, "v1", steps.DecidePromotion(round=1)),
        (
            {"candidate_model_version_id": "v2", "decision": decision()},
            "v1",
            steps.Activate(round=1, model_version_id="v2", expected_current="v1"),
        ),
        (
            {"candidate_model_version_id": "v2", "decision": decision()},
            None,
            steps.Activate(round=1, model_version_id="v2", expected_current=None),
        ),
        (
            {"candidate_model_version_id": "v2", "decision": decision()},
            "v2",
            steps.AdvanceRound(round=1, from_state=PROMOTING, to_state=PREDICTING),
        ),
        (
            {"candidate_model_version_id": "v2", "decision": decision(promoted=False)},
            "v1",
            steps.AdvanceRound(round=1, from_state=PROMOTING, to_state=PREDICTING),
        ),
    ],
)
def test_promoting(make: SimpleNamespace, changes, serving, expected):
    """Register, decide, activate if promoted, go on; a refused candidate is never activated."""
    working = make.round(1, PROMOTING, **changes)
    assert expected == next_step(view(make, working, active_model_version_id=serving))


@pytest.mark.parametrize(
    ("predictions", "expected"),
    [
        ({"missing": 3, "pending": 1}, steps.EnqueuePredictions(model_version_id="v1")),
        ({"pending": 9, "pool_pending": 2}, steps.PredictBatch(model_version_id="v1")),
        ({"pending": 9}, steps.CloseRound(round=1)),
        ({}, steps.CloseRound(round=1)),
    ],
)
def test_predicting(make: SimpleNamespace, predictions, expected):
    """The round closes when the pool is done; the rest does not keep it."""
    assert expected == next_step(
        view(make, make.round(1, PREDICTING), make.round(2, SELECTING), predictions=predictions)
    )


@pytest.mark.parametrize(
    ("predictions", "expected"),
    [
        ({"missing": 1}, steps.EnqueuePredictions(model_version_id="v1")),
        ({"pending": 1}, steps.PredictBatch(model_version_id="v1")),
        ({}, None),
    ],
)
def test_background(make: SimpleNamespace, predictions, expected):
    """While annotators work, the rest of the set is predicted."""
    seen = view(make, make.round(1, ANNOTATING), predictions=predictions, cases={"round_open": 1})
    assert isinstance(next_step(seen), steps.Wait)
    assert expected == background_step(seen)


def test_no_predictions_without_a_model(make: SimpleNamespace):
    """Before the igniter serves nothing can be predicted."""
    seen = view(make, make.round(0, TRAINING), active_model_version_id=None, predictions={"missing": 5})
    assert background_step(seen) is None


@pytest.mark.parametrize(
    ("states", "working", "open_number"),
    [
        ([], None, None),
        ([TRAINING], 0, None),
        ([CLOSED, SELECTING], 1, 1),
        ([CLOSED, ANNOTATING], 1, 1),
        ([CLOSED, TRAINING], 1, None),
        ([CLOSED, TRAINING, SELECTING], 1, 2),
        ([CLOSED, CLOSED, SELECTING], 2, 2),
        ([CLOSED, CLOSED], None, None),
    ],
)
def test_which_round_moves_and_which_takes_labels(make: SimpleNamespace, states, working, open_number):
    """The oldest unfinished round moves; the newest takes labels unless it is past annotation."""
    rounds = tuple(make.round(i, state) for i, state in enumerate(states))
    moving, taking = working_round(rounds), open_round(rounds)
    assert (working, open_number) == (moving and moving.number, taking and taking.number)
