"""Promotion and roll-back, per organ."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from rekindle.vocabulary import OrganState, OrganStatus, RunResult
from rekindle_scheduler.domain.enums import DecisionBasis
from rekindle_scheduler.domain.policy import PromotionPolicy
from rekindle_scheduler.domain.promotion import decide_promotion, decide_roll_back

POLICY = PromotionPolicy(margin_dice=0.02, min_held_out_cases=3)
ORGANS = ("liver", "spleen")


def result(make: SimpleNamespace, candidate=(), current=(), check=()) -> RunResult:
    """Each argument lists (liver Dice, spleen Dice) per case."""

    def metrics(rows):
        return tuple(make.metrics(f"i{i}", liver=a, spleen=b) for i, (a, b) in enumerate(rows))

    return RunResult(
        packages=(),
        weights_digest=make.sha("w"),
        candidate=metrics(candidate),
        current=metrics(current),
        training_check=metrics(check),
    )


def decide(run: RunResult | None, current="v1", prequential=()):
    return decide_promotion(POLICY, organs=ORGANS, current=current, result=run, prequential=prequential)


def corrected(make: SimpleNamespace, *rows, **changes):
    """Submissions whose coarse labels had these (liver Dice, spleen Dice)."""
    return [make.submission(f"c{i}", {"liver": a, "spleen": b}, **changes) for i, (a, b) in enumerate(rows)]


def test_the_first_model_is_promoted(make: SimpleNamespace):
    """There is nothing to compare it with, trained or imported."""
    for run in (result(make), None):
        decision = decide(run, current=None)
        assert (True, DecisionBasis.FIRST) == (decision.promoted, decision.basis)


@pytest.mark.parametrize(
    ("candidate", "promoted"),
    [
        ([(0.9, 0.8)] * 3, True),
        ([(0.86, 0.79)] * 3, True),
        ([(0.85, 0.78)] * 3, True),
        ([(0.85, 0.7799)] * 3, False),
        ([(0.99, 0.5)] * 3, False),
        ([(0.90, 0.80), (0.90, 0.80), (0.90, 0.74)], True),
    ],
)
def test_margin_per_organ_on_held_out_cases(make: SimpleNamespace, candidate, promoted: bool):
    """A fall of the margin is allowed, a larger one of a single organ is not, whatever the other gains."""
    decision = decide(result(make, candidate, [(0.87, 0.8)] * 3))
    assert (promoted, DecisionBasis.HELD_OUT) == (decision.promoted, decision.basis)


def test_refusal_reads_like_a_sentence(make: SimpleNamespace):
    """The reason names organ, figures, cases and margin."""
    decision = decide(result(make, [(0.9, 0.62)] * 3, [(0.8, 0.81)] * 3))
    assert "spleen 0.81 -> 0.62 on 3 held-out cases: worse than the margin of 0.02" == decision.reason
    figures = [(o.organ_id, o.candidate_dice, o.current_dice, o.cases) for o in decision.organs]
    assert [("liver", pytest.approx(0.9), pytest.approx(0.8), 3)] == figures[:1]


def test_promotion_reads_like_a_sentence(make: SimpleNamespace):
    """What was compared is said for a promoted model too."""
    decision = decide(result(make, [(0.9, 0.82)] * 4, [(0.8, 0.81)] * 4))
    assert "not worse on 4 held-out cases: liver 0.80 -> 0.90, spleen 0.81 -> 0.82" == decision.reason


def test_a_lost_organ_is_refused_within_the_margin(make: SimpleNamespace):
    """An organ that the candidate no longer finds in most cases has collapsed, however small its Dice was."""
    decision = decide(result(make, [(0.9, 0.0)] * 2 + [(0.9, 0.03)], [(0.9, 0.01)] * 3))
    assert not decision.promoted
    assert "spleen is lost altogether in 2 of 3 held-out cases" == decision.reason


def test_undefined_cases_are_left_out(make: SimpleNamespace):
    """Where no spleen is there and none is found, the case says nothing about spleens."""
    decision = decide(result(make, [(0.9, None), (0.9, 0.8), (0.9, 0.8)], [(0.9, None), (0.9, 0.8), (0.9, 0.8)]))
    assert decision.promoted
    assert [3, 2] == [organ.cases for organ in decision.organs]


def test_cases_are_paired_by_image(make: SimpleNamespace):
    """Cases that only one of the two was evaluated on do not count."""
    run = result(make, [(0.9, 0.9)] * 5, [(0.8, 0.8)] * 3)
    assert [3, 3] == [organ.cases for organ in decide(run).organs]


@pytest.mark.parametrize(
    ("check", "promoted", "words"),
    [
        ([(0.95, 0.9)] * 4, True, "2 held-out cases are labelled, 3 are needed"),
        ([(0.83, 0.78)] * 4, True, "judged on its training cases"),
        ([(0.95, 0.7)] * 4, False, "spleen 0.70 on its own training cases, below the 0.80 of the coarse labels"),
        ([(0.95, 0.0)] * 4, False, "spleen is lost altogether in 4 of 4 training cases"),
    ],
)
def test_prequential_while_held_out_cases_are_few(make: SimpleNamespace, check, promoted: bool, words: str):
    """A candidate must fit its training cases as well as the coarse labels fitted their corrections."""
    run = result(make, [(0.1, 0.1)] * 2, [(0.9, 0.9)] * 2, check)
    decision = decide(run, prequential=corrected(make, (0.8, 0.75), (0.9, 0.85)))
    assert (promoted, DecisionBasis.PREQUENTIAL) == (decision.promoted, decision.basis)
    assert words in decision.reason


def test_collapse_is_caught_without_any_correction(make: SimpleNamespace):
    """Before the first submission against the current version there is still the candidate itself."""
    assert not decide(result(make, check=[(0.9, 0.0)] * 3)).promoted
    assert decide(result(make, check=[(0.9, 0.4)] * 3)).promoted


def test_organs_nobody_reviewed_say_nothing(make: SimpleNamespace):
    """A coarse label that was not looked at is no evidence for its own quality."""
    states = (
        OrganState(organ_id="liver", status=OrganStatus.EDITED),
        OrganState(organ_id="spleen", status=OrganStatus.NOT_REVIEWED),
    )
    unseen = corrected(make, (0.8, 1.0), (0.8, 1.0), organ_states=states)
    decision = decide(result(make, check=[(0.9, 0.7)] * 3), prequential=unseen)
    assert decision.promoted
    assert [2, 0] == [organ.cases for organ in decision.organs]


@pytest.mark.parametrize(
    ("served", "before", "rolled_back"),
    [
        ([(0.9, 0.6)] * 3, [(0.8, 0.8)] * 3, True),
        ([(0.9, 0.79)] * 3, [(0.8, 0.8)] * 3, False),
        ([(0.9, 0.6)] * 2, [(0.8, 0.8)] * 9, False),
        ([(0.9, 0.6)] * 9, [(0.8, 0.8)] * 2, False),
        ([(0.9, None)] * 3, [(0.8, 0.8)] * 3, False),
    ],
)
def test_roll_back(make: SimpleNamespace, served, before, rolled_back: bool):
    """Worse by more than the margin on three cases each, for any organ, gives way to the version before."""
    decision = decide_roll_back(
        POLICY,
        organs=ORGANS,
        predecessor="v1",
        served=corrected(make, *served),
        before=corrected(make, *before),
    )
    assert (rolled_back, "v1" if rolled_back else None) == (decision.roll_back, decision.to_model_version_id)
    assert not rolled_back or "spleen 0.80 -> 0.60" in decision.reason


def test_no_roll_back_without_predecessor(make: SimpleNamespace):
    """The first model has nothing to give way to."""
    worse, better = corrected(make, *[(0.1, 0.1)] * 5), corrected(make, *[(0.9, 0.9)] * 5)
    decision = decide_roll_back(POLICY, organs=ORGANS, predecessor=None, served=worse, before=better)
    assert not decision.roll_back
