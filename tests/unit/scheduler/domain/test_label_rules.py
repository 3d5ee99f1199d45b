"""Rules of labels after they were handed in, of drafts' time, and of sessions, as tables."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest
from rekindle.errors import IllegalTransition, InvalidInput
from rekindle_scheduler.domain.annotation import check_session, session_lease_duration
from rekindle_scheduler.domain.enums import ReviewState, ReviewVerdict, RoundState
from rekindle_scheduler.domain.held_out import held_out_at_close
from rekindle_scheduler.domain.minutes import check_segments, not_booked
from rekindle_scheduler.domain.policy import HeldOutPolicy, Policy
from rekindle_scheduler.domain.reconcile import CaseTally, ProjectView, next_step
from rekindle_scheduler.domain.reviews import check_review, check_withdrawal, standing_before
from rekindle_scheduler.domain.steps import CutSnapshot, OpenRound, OpenSelection, SkipTraining, Wait

ACCEPT, REJECT = ReviewVerdict.ACCEPT, ReviewVerdict.REJECT
ACCEPTED, DRAFT, PENDING = ReviewState.ACCEPTED, ReviewState.DRAFT, ReviewState.PENDING
REJECTED, WITHDRAWN = ReviewState.REJECTED, ReviewState.WITHDRAWN


@pytest.mark.parametrize(
    ("label", "case", "verdict", "supersede", "reason"),
    [
        ({"review_state": PENDING}, {"pending_submission_id": "s"}, ACCEPT, False, None),
        ({"review_state": PENDING}, {"pending_submission_id": "s"}, REJECT, False, None),
        # A correction that waits takes the place of the label that it corrects, not of another one.
        ({"review_state": PENDING, "supersedes_submission_id": "a"}, {"submission_id": "a"}, ACCEPT, False, None),
        (
            {"review_state": PENDING, "supersedes_submission_id": "a"},
            {"submission_id": "b"},
            ACCEPT,
            False,
            "CASE_LABELLED",
        ),
        ({"review_state": PENDING, "supersedes_submission_id": "a"}, {"submission_id": "b"}, ACCEPT, True, None),
        ({"review_state": DRAFT}, {}, ACCEPT, False, None),
        ({"review_state": DRAFT}, {"submission_id": "a"}, ACCEPT, False, "CASE_LABELLED"),
        ({"review_state": DRAFT}, {"submission_id": "a"}, ACCEPT, True, None),
        ({"review_state": DRAFT}, {"submission_id": "a"}, REJECT, False, None),
        ({"review_state": DRAFT}, {"is_held": True}, ACCEPT, True, "CASE_LEASED"),
        ({"review_state": DRAFT}, {"pending_submission_id": "p"}, ACCEPT, True, "CASE_IN_REVIEW"),
        ({"review_state": ACCEPTED}, {"submission_id": "s"}, ACCEPT, False, None),
        ({"review_state": ACCEPTED, "reviewed_by": "r"}, {"submission_id": "s"}, ACCEPT, False, "SUBMISSION_REVIEWED"),
        ({"review_state": ACCEPTED, "reviewed_by": "r"}, {"submission_id": "s"}, REJECT, False, None),
        ({"review_state": ACCEPTED}, {"submission_id": "newer"}, REJECT, False, "SUBMISSION_SUPERSEDED"),
        ({"review_state": REJECTED}, {}, ACCEPT, True, "SUBMISSION_REVIEWED"),
        ({"review_state": WITHDRAWN}, {}, ACCEPT, True, "SUBMISSION_WITHDRAWN"),
    ],
)
def test_reviews(make: SimpleNamespace, label, case, verdict, supersede: bool, reason: str | None):
    """What may be judged how; a refusal names why."""
    submission = make.submission("case1", submission_id="s", **label)
    if reason is None:
        check_review(make.case(1, **case), submission, verdict, supersede=supersede)
        return
    with pytest.raises(IllegalTransition) as refused:
        check_review(make.case(1, **case), submission, verdict, supersede=supersede)
    assert reason == refused.value.reason


@pytest.mark.parametrize(
    ("label", "case", "reason"),
    [
        ({"review_state": ACCEPTED}, {"submission_id": "s"}, None),
        ({"review_state": PENDING}, {"pending_submission_id": "s"}, None),
        ({"review_state": DRAFT}, {"submission_id": "other"}, None),
        ({"review_state": ACCEPTED, "snapshot_round": 2}, {"submission_id": "s"}, "IN_SNAPSHOT"),
        ({"review_state": ACCEPTED}, {"submission_id": "newer"}, "SUBMISSION_SUPERSEDED"),
        ({"review_state": REJECTED}, {}, "SUBMISSION_REVIEWED"),
        ({"review_state": WITHDRAWN}, {}, "SUBMISSION_WITHDRAWN"),
    ],
)
def test_withdrawals(make: SimpleNamespace, label, case, reason: str | None):
    """Until a snapshot holds it, and once."""
    submission = make.submission("case1", submission_id="s", **label)
    if reason is None:
        check_withdrawal(make.case(1, **case), submission)
        return
    with pytest.raises(IllegalTransition) as refused:
        check_withdrawal(make.case(1, **case), submission)
    assert reason == refused.value.reason


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ((ACCEPTED, ACCEPTED), "b"),
        ((ACCEPTED, WITHDRAWN), "a"),
        ((REJECTED, WITHDRAWN), None),
        ((REJECTED, ACCEPTED), "b"),
    ],
)
def test_which_label_counts_again(make: SimpleNamespace, states, expected: str | None):
    """The nearest accepted one of those that it had superseded."""
    first = make.submission(submission_id="a", review_state=states[0])
    second = make.submission(submission_id="b", review_state=states[1], supersedes_submission_id="a")
    third = make.submission(submission_id="c", supersedes_submission_id="b")
    assert expected == standing_before(third, [first, second, third])
    assert standing_before(first, [first, second, third]) is None


def test_booked_segments_are_passed_over(make: SimpleNamespace):
    """Equal in every field; one that has grown, or of another kind, is another one."""
    booked = make.segment(0, 60.0, tool="viewer")
    others = [make.segment(0, 61.0, tool="viewer"), make.segment(0, 60.0), make.segment(1, 60.0, tool="viewer")]
    assert tuple(others) == not_booked([booked, *others], [booked])


def test_what_is_booked_counts_against_the_time_held(make: SimpleNamespace):
    """40 minutes of 60 are booked: 20 more fit, 21 do not."""
    booked = [make.segment(0, 2400.0)]
    interval = {"held_from": make.noon, "held_until": make.noon + timedelta(hours=1)}
    check_segments([make.segment(40, 1200.0)], earlier=booked, booked=booked, **interval)
    with pytest.raises(InvalidInput, match=r"60\.0 too many"):
        check_segments([make.segment(40, 1260.0)], earlier=booked, booked=booked, **interval)


@pytest.mark.parametrize(
    ("minutes", "wish", "detached", "expected"),
    [
        (30.0, None, False, timedelta(hours=4)),
        (600.0, None, False, timedelta(hours=10)),
        (30.0, None, True, timedelta(days=7)),
        (30.0, timedelta(hours=1), True, timedelta(hours=1)),
    ],
)
def test_how_long_the_leases_of_a_session_last(minutes: float, wish, detached: bool, expected: timedelta):
    """As asked for; else as the policy says, and no shorter than the session."""
    assert expected == session_lease_duration(
        Policy(lease_duration=timedelta(hours=4)), minutes, wish, detached=detached
    )


@pytest.mark.parametrize("minutes", [0.0, -5.0, 1440.1, float("nan")])
def test_sessions_of_no_length_are_refused(minutes: float):
    """And those of more than a day."""
    with pytest.raises(InvalidInput):
        check_session(minutes, 0)


@pytest.mark.parametrize(
    ("changes", "trained"),
    [({"submission_id": "s"}, ()), ({"pending_submission_id": "p"}, ()), ({}, ("case1",))],
    ids=["labelled", "in review", "trained on before"],
)
def test_whoever_was_touched_is_not_held_out(make: SimpleNamespace, changes, trained):
    """A label, one that may be accepted at any moment, or one in a snapshot: its patient stays in training."""
    policy = Policy(held_out=HeldOutPolicy(number=3))
    cases = [make.case(number, **(changes if number == 1 else {})) for number in (1, 2, 3)]
    assert {"case2", "case3"} == held_out_at_close(policy, cases, frozenset(trained))


@pytest.mark.parametrize(
    ("state", "tally", "expected"),
    [
        (RoundState.SELECTING, {"open": 1, "in_review": 1, "open_training": 1}, Wait),
        (RoundState.SELECTING, {"open": 1, "in_review": 1, "open_training": 1, "round_labels": 1}, Wait),
        (RoundState.SELECTING, {"round_labels": 1}, OpenSelection),
        (RoundState.ANNOTATING, {"open": 1, "in_review": 1, "round_open": 1, "round_labels": 2}, Wait),
        (RoundState.ANNOTATING, {"round_labels": 2, "round_training_labels": 2}, CutSnapshot),
        (RoundState.ANNOTATING, {"open": 1, "in_review": 1}, SkipTraining),
    ],
)
def test_a_round_waits_for_reviewers(make: SimpleNamespace, state, tally, expected):
    """As it waits for annotators: for those of its own cases while it annotates, for all before it selects."""
    view = ProjectView(
        project=make.project(active_model_version_id="v1"),
        rounds=(make.round(0, RoundState.CLOSED), make.round(1, state)),
        cases=CaseTally(**tally),
    )
    assert isinstance(next_step(view), expected)


def test_train_now_does_not_wait_for_reviewers(make: SimpleNamespace):
    """It takes what is accepted; without any it waits all the same."""
    for labels, expected in ((1, CutSnapshot), (0, Wait)):
        view = ProjectView(
            project=make.project(active_model_version_id="v1"),
            rounds=(make.round(0, RoundState.CLOSED), make.round(1, RoundState.ANNOTATING, train_requested=True)),
            cases=CaseTally(open=1, in_review=1, round_open=1, round_labels=labels, round_training_labels=labels),
        )
        assert isinstance(next_step(view), expected)


def test_cases_in_review_open_a_round(make: SimpleNamespace):
    """They are open: the project is not complete before they are judged."""
    view = ProjectView(
        project=make.project(active_model_version_id="v1"),
        rounds=(make.round(0, RoundState.CLOSED),),
        cases=CaseTally(open=1, in_review=1),
    )
    assert OpenRound(round=1) == next_step(view)
