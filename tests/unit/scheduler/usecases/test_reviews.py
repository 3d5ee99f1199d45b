"""Reviews: of labels that wait, that came too late, that count already."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rekindle.errors import IllegalTransition, InvalidInput, NotFound, PermissionDenied
from rekindle_scheduler.actions.models import labels_started_from
from rekindle_scheduler.domain.enums import CaseState, ReviewState
from rekindle_scheduler.domain.ids import SubmissionId
from rekindle_scheduler.domain.policy import HeldOutPolicy, ReviewPolicy
from rekindle_scheduler.state import SubmissionFilter
from rekindle_scheduler.usecases import ledger, projects, submissions
from scheduler_labels import (
    ACCEPT,
    CARLA,
    REJECT,
    case_of,
    counting,
    freeze,
    hand_in,
    late_label,
    other_mask,
    review,
    take,
    take_again,
    tally,
    withdraw,
)
from scheduler_ports import ALICE, BOB, MODEL, START, Bench, measured

REVIEWED = {"review": ReviewPolicy(required=True)}


@pytest.fixture
def strict(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    bench.annotating("v1", "v2", **REVIEWED)
    return bench


def test_a_label_waits_for_its_review(strict: Bench) -> None:
    """It does not count, its case is handed to nobody, and the round waits for it; accepted, it counts."""
    details = take(strict)
    pending = hand_in(strict, details)
    assert ReviewState.PENDING == pending.review_state
    assert CaseState.IN_REVIEW == case_of(strict, pending.case_id).state
    waiting = tally(strict)
    assert (0, 2, 1, 1) == (waiting.round_labels, waiting.round_open, waiting.in_review, waiting.ready)
    assert pending.case_id != take(strict, BOB).case.case_id
    judged = review(strict, pending, ACCEPT, comment="good")
    assert (ReviewState.ACCEPTED, "good") == (judged.submission.review_state, judged.submission.review_comment)
    assert (CaseState.LABELLED, pending.submission_id, None) == (
        judged.case.state,
        judged.case.submission_id,
        judged.case.pending_submission_id,
    )
    with strict.store.read() as uow:
        assert uow.annotators.find(CARLA) == judged.submission.reviewed_by
    assert 1 == tally(strict).round_labels


def test_a_rejected_label_opens_its_case(strict: Bench) -> None:
    """Handed out again; the next label of it may start from the rejected one."""
    rejected = hand_in(strict, take(strict))
    assert CaseState.READY == review(strict, rejected, REJECT).case.state
    again = take(strict)
    assert rejected.case_id == again.case.case_id
    second = hand_in(strict, again, receipt=other_mask("m2", again, base=rejected.mask_volume_id))
    assert rejected.submission_id == second.started_from_submission_id


def test_a_pending_correction_leaves_the_standing_label_alone(strict: Bench) -> None:
    """That counts until the review, and again when the correction is withdrawn; one waits at a time."""
    first = review(strict, hand_in(strict, take(strict)), ACCEPT).submission
    again = take_again(strict, first.case_id)
    second = hand_in(strict, again, receipt=other_mask("m2", again))
    assert (CaseState.LABELLED, [first.mask_volume_id]) == (case_of(strict, first.case_id).state, counting(strict))
    with pytest.raises(IllegalTransition) as refused:
        take_again(strict, first.case_id)
    assert "CASE_IN_REVIEW" == refused.value.reason
    withdraw(strict, second)
    assert [first.mask_volume_id] == counting(strict)
    again = take_again(strict, first.case_id)
    third = hand_in(strict, again, receipt=other_mask("m3", again))
    review(strict, third, ACCEPT)
    assert ["m3"] == counting(strict)


def test_an_accepted_label_counts_for_the_round_that_is_open_then(strict: Bench) -> None:
    """Its review came when round 1 was closed."""
    pending = hand_in(strict, take(strict))
    freeze(strict)
    assert 2 == review(strict, pending, ACCEPT).submission.round


@pytest.mark.parametrize(
    ("policy", "is_allowed"),
    [
        (ReviewPolicy(required=True), False),
        (ReviewPolicy(required=True, allow_own=True), True),
        (ReviewPolicy(required=False), True),
    ],
)
def test_ones_own_label_is_reviewed_where_the_project_allows_it(
    tmp_path: Path, policy: ReviewPolicy, is_allowed: bool
) -> None:
    """Where reviews are required, by somebody else, unless the policy says otherwise."""
    bench = Bench(tmp_path)
    bench.annotating("v1", review=policy)
    own = hand_in(bench, take(bench, CARLA), CARLA)
    if is_allowed:
        assert ReviewState.ACCEPTED == review(bench, own, ACCEPT).submission.review_state
    else:
        with pytest.raises(PermissionDenied) as refused:
            review(bench, own, ACCEPT)
        assert "OWN_SUBMISSION" == refused.value.reason


def test_only_reviewers_review(strict: Bench) -> None:
    """Bob is none."""
    pending = hand_in(strict, take(strict))
    with pytest.raises(PermissionDenied) as refused:
        review(strict, pending, ACCEPT, BOB)
    assert "NOT_A_REVIEWER" == refused.value.reason


def test_a_label_is_reviewed_once(strict: Bench) -> None:
    """A rejected one stays rejected; an accepted one is not accepted again, but may be rejected on a second look."""
    first, second = hand_in(strict, take(strict)), hand_in(strict, take(strict))
    review(strict, first, REJECT)
    for verdict in (ACCEPT, REJECT):
        with pytest.raises(IllegalTransition) as refused:
            review(strict, first, verdict)
        assert "SUBMISSION_REVIEWED" == refused.value.reason
    review(strict, second, ACCEPT)
    with pytest.raises(IllegalTransition):
        review(strict, second, ACCEPT)
    assert CaseState.READY == review(strict, second, REJECT).case.state


def test_a_second_look_marks_a_label_that_counts(bench: Bench) -> None:
    """It counted before, and goes on to."""
    stored = hand_in(bench, take(bench))
    judged = review(bench, stored, ACCEPT)
    assert (ReviewState.ACCEPTED, bench.now) == (judged.submission.review_state, judged.submission.review_time)
    assert [stored.mask_volume_id] == counting(bench)


def test_a_rejected_label_of_a_snapshot_counts_no_more(bench: Bench) -> None:
    """The snapshot stays as it was cut; the next one is without it."""
    stored = hand_in(bench, take(bench))
    freeze(bench)
    judged = review(bench, stored, REJECT)
    assert (CaseState.READY, 1) == (judged.case.state, judged.submission.snapshot_round)
    assert [] == counting(bench)


def test_a_case_that_was_trained_on_is_never_held_out(tmp_path: Path) -> None:
    """Its label was rejected after the snapshot; drawing all but one group for the test set leaves it out."""
    bench = Bench(tmp_path)
    bench.annotating("v1", "v2", "v3", held_out=HeldOutPolicy(number=3))
    stored = hand_in(bench, take(bench))
    freeze(bench)
    review(bench, stored, REJECT)
    with bench.store.write() as uow:
        projects.close_registration(uow, bench.project_id)
        held_out = {case.case_id for case in uow.cases.all(bench.project_id) if case.held_out}
    assert 2 == len(held_out)
    assert stored.case_id not in held_out


def test_a_late_label_counts_once_a_reviewer_accepts_it(bench: Bench) -> None:
    """With its time, as far as the case was held; nobody has it by then."""
    late = late_label(bench, time_segments=(measured(START, 600.0),))
    judged = review(bench, late, ACCEPT)
    assert (ReviewState.ACCEPTED, CaseState.LABELLED) == (judged.submission.review_state, judged.case.state)
    assert ["late"] == counting(bench)
    with bench.store.read() as uow:
        assert 10.0 == pytest.approx(ledger.report(uow, bench.project_id).ledger.minutes_total)


def test_time_that_a_late_label_cannot_have_taken_is_not_booked(bench: Bench) -> None:
    """Six hours on a lease of four: the label counts all the same."""
    late = late_label(bench, time_segments=(measured(START, 6 * 3600.0),))
    assert () == review(bench, late, ACCEPT).submission.time_segments
    with bench.store.read() as uow:
        assert 0.0 == ledger.report(uow, bench.project_id).ledger.minutes_total


def test_a_late_label_supersedes_another_only_when_that_is_said(bench: Bench) -> None:
    """Bob's label counts meanwhile: the refusal names it."""
    details = take(bench)
    bench.later(hours=5)
    bobs = take(bench, BOB)
    late = hand_in(bench, details, receipt=other_mask("late", details))
    with pytest.raises(IllegalTransition) as refused:
        review(bench, late, ACCEPT)
    assert "CASE_LEASED" == refused.value.reason
    standing = hand_in(bench, bobs, BOB)
    with pytest.raises(IllegalTransition) as refused:
        review(bench, late, ACCEPT)
    assert ("CASE_LABELLED", standing.submission_id) == (
        refused.value.reason,
        refused.value.metadata["submission_id"],
    )
    accepted = review(bench, late, ACCEPT, supersede=True).submission
    assert standing.submission_id == accepted.supersedes_submission_id
    assert ["late"] == counting(bench)


def test_a_late_label_is_rejected_or_withdrawn_without_touching_the_case(bench: Bench) -> None:
    """It did not count before either."""
    late = late_label(bench)
    assert (ReviewState.REJECTED, CaseState.READY) == (
        (judged := review(bench, late, REJECT)).submission.review_state,
        judged.case.state,
    )
    with pytest.raises(IllegalTransition):
        withdraw(bench, late)


def test_submissions_are_listed_by_state_and_by_annotator(strict: Bench) -> None:
    """Pending ones alone, or one's own alone."""
    first, second = hand_in(strict, take(strict)), hand_in(strict, take(strict, BOB), BOB)
    review(strict, first, ACCEPT)

    def listed(principal: Any = ALICE, *, mine: bool = False, **which: Any) -> list[SubmissionId]:
        with strict.store.read() as uow:
            found = submissions.list_submissions(
                uow, principal, strict.project_id, SubmissionFilter(**which), mine=mine, after=0, limit=9
            )
        return [each.submission_id for _, each in found]

    assert [second.submission_id] == listed(review_states=frozenset({ReviewState.PENDING}))
    assert [second.submission_id] == listed(BOB, mine=True)
    assert [] == listed(CARLA, mine=True)
    assert [first.submission_id, second.submission_id] == listed()


def test_what_is_wrong_with_a_review_is_told(strict: Bench) -> None:
    """A comment that is too long, a submission that is not there."""
    pending = hand_in(strict, take(strict))
    with pytest.raises(InvalidInput) as refused:
        review(strict, pending, ACCEPT, comment="x" * 2001)
    assert "comment" == refused.value.violations[0].field
    with pytest.raises(NotFound):
        review(strict, replace(pending, submission_id=SubmissionId("nobody")), ACCEPT)


def test_prequential_evidence_is_of_coarse_labels_alone(bench: Bench) -> None:
    """A correction measured against the label before it says nothing about the model."""
    first = hand_in(bench, take(bench))
    with bench.store.read() as uow:
        assert [first.submission_id] == [
            each.submission_id for each in labels_started_from(uow, bench.project_id, MODEL)
        ]
    again = take_again(bench, first.case_id)
    hand_in(bench, again, receipt=other_mask("m2", again, base=first.mask_volume_id))
    with bench.store.read() as uow:
        assert [] == labels_started_from(uow, bench.project_id, MODEL)
