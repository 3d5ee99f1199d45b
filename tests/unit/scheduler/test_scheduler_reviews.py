"""What becomes of a label: reviewed, withdrawn, corrected; exactly one label of a case counts, or none."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from rekindle.errors import IllegalTransition, InvalidInput, NotFound, PermissionDenied
from rekindle_scheduler.actions.models import _started_from
from rekindle_scheduler.domain.ids import SubmissionId
from rekindle_scheduler.domain.policy import HeldOutPolicy, ReviewPolicy
from rekindle_scheduler.domain.records import Submission
from rekindle_scheduler.domain.words import CaseState, ProjectState, ReviewState, RoundState
from rekindle_scheduler.ports import SubmissionFilter
from rekindle_scheduler.usecases import ledger, projects, rounds, submissions
from rekindle_scheduler.usecases.calibration import minutes_factor
from scheduler_labels import (
    ACCEPT,
    CARLA,
    REJECT,
    case_of,
    counting,
    hand_in,
    other_mask,
    review,
    take,
    take_again,
    withdraw,
)
from scheduler_ports import ALICE, BOB, MODEL, START, Bench, measured, round_of

REVIEWED = {"review": ReviewPolicy(required=True)}


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    bench.annotating("v1", "v2")
    return bench


@pytest.fixture
def strict(tmp_path: Path) -> Bench:
    bench = Bench(tmp_path)
    bench.annotating("v1", "v2", **REVIEWED)
    return bench


def freeze(bench: Bench, number: int = 1) -> None:
    """Cut the round: what counts is in its snapshot, and the next round takes labels."""
    with bench.store.write() as uow:
        uow.rounds.get(bench.project_id, number)
        uow.submissions.freeze(bench.project_id, number, [])
        uow.rounds.update(round_of(bench.project_id, number, RoundState.TRAINING))
        uow.rounds.add(round_of(bench.project_id, number + 1, RoundState.SELECTING))


def late_label(bench: Bench, **changes: Any) -> Submission:
    """Of Alice, who had lost the case to Bob; he has given it back since."""
    details = take(bench)
    bench.later(hours=5)
    take(bench, BOB)
    late = hand_in(bench, details, receipt=other_mask("late", details), **changes)
    assert ReviewState.DRAFT == late.review_state
    bench.later(hours=5)
    return late


def tally(bench: Bench) -> Any:
    with bench.store.read() as uow:
        return uow.tallies.cases(bench.project_id, 1)


# -- withdrawal


def test_a_withdrawn_label_opens_its_case_again(bench: Bench) -> None:
    """Ready, with its coarse label, handed out next in the same round; its time stays in the ledger."""
    details = take(bench)
    bench.later(minutes=10)
    stored = hand_in(bench, details, time_segments=(measured(START, 300.0),))
    judged = withdraw(bench, stored)
    assert (ReviewState.WITHDRAWN, bench.now) == (judged.submission.review_state, judged.submission.withdraw_time)
    assert (CaseState.READY, details.case.coarse_label) == (judged.case.state, judged.case.coarse_label)
    assert (0, 2) == (tally(bench).round_labels, tally(bench).round_open)
    assert details.case.case_id == take(bench, BOB).case.case_id
    with bench.store.read() as uow:
        assert 5.0 == pytest.approx(ledger.report(uow, ALICE, bench.project_id).ledger.minutes_total)
        assert 0 == rounds.get_round(uow, ALICE, bench.project_id, 1).round.labelled_cases


def test_a_label_in_a_snapshot_is_not_withdrawn(bench: Bench) -> None:
    """It was trained on: the refusal names the round and says to correct it instead."""
    stored = hand_in(bench, take(bench))
    freeze(bench)
    with pytest.raises(IllegalTransition) as refused:
        withdraw(bench, stored)
    assert ("IN_SNAPSHOT", {"round": "1"}) == (refused.value.reason, refused.value.metadata)
    assert CaseState.LABELLED == case_of(bench, stored.case_id).state


def test_a_label_is_withdrawn_by_its_annotator_or_a_reviewer(bench: Bench) -> None:
    """Not by anybody else, and not twice."""
    stored = hand_in(bench, take(bench))
    with pytest.raises(PermissionDenied):
        withdraw(bench, stored, BOB)
    withdraw(bench, stored, CARLA)
    with pytest.raises(IllegalTransition) as refused:
        withdraw(bench, stored)
    assert "SUBMISSION_WITHDRAWN" == refused.value.reason


def test_a_second_label_under_an_ended_lease_is_kept_only(bench: Bench) -> None:
    """After the withdrawal the case is open, and the old lease does not label it again."""
    details = take(bench)
    withdraw(bench, hand_in(bench, details))
    assert ReviewState.DRAFT == hand_in(bench, details).review_state
    assert CaseState.READY == case_of(bench, details.case.case_id).state


# -- corrections


def test_a_correction_supersedes_the_label(bench: Bench) -> None:
    """While it is drawn the old label counts and the case is not open; then the new revision counts, once."""
    details = take(bench)
    first = hand_in(bench, details)
    again = take_again(bench, first.case_id, BOB)
    assert (CaseState.LABELLED, True) == (again.case.state, again.case.is_held)
    assert [first.mask_volume_id] == counting(bench)
    assert (1, 0) == (tally(bench).open, tally(bench).leased)
    second = hand_in(bench, again, BOB, receipt=other_mask("m2", again, base=first.mask_volume_id))
    assert (2, first.submission_id) == (second.revision, second.supersedes_submission_id)
    assert (first.submission_id, None) == (second.started_from_submission_id, second.coarse_model_version_id)
    assert ["m2"] == counting(bench)
    assert 1 == tally(bench).round_labels
    with bench.store.read() as uow:
        assert 1 == rounds.get_round(uow, ALICE, bench.project_id, 1).round.labelled_total


def test_a_correction_of_an_earlier_rounds_label_counts_for_the_open_round(bench: Bench) -> None:
    """Round 1 keeps its label; round 2 has a new one, and nothing is labelled twice in all."""
    first = hand_in(bench, take(bench))
    freeze(bench)
    again = take_again(bench, first.case_id)
    second = hand_in(bench, again, receipt=other_mask("m2", again, base=first.mask_volume_id))
    assert 2 == second.round
    with bench.store.read() as uow:
        counted = [(each.number, each.labelled_cases, each.labelled_total) for each in uow.rounds.all(bench.project_id)]
        assert [(0, 0, 0), (1, 1, 1), (2, 1, 1)] == counted
        assert 1 == uow.tallies.cases(bench.project_id, 2).round_labels
        assert 0 == uow.tallies.cases(bench.project_id, 1).round_labels


def test_a_withdrawn_correction_gives_way_to_the_label_before(bench: Bench) -> None:
    """Through several of them, back to the newest that still stands."""
    first = hand_in(bench, take(bench))
    again = take_again(bench, first.case_id)
    second = hand_in(bench, again, receipt=other_mask("m2", again))
    again = take_again(bench, first.case_id)
    third = hand_in(bench, again, receipt=other_mask("m3", again))
    with pytest.raises(IllegalTransition) as refused:
        withdraw(bench, second)
    assert ("SUBMISSION_SUPERSEDED", third.submission_id) == (
        refused.value.reason,
        refused.value.metadata["submission_id"],
    )
    review(bench, third, REJECT)
    assert ["m2"] == counting(bench)
    withdraw(bench, second)
    assert [first.mask_volume_id] == counting(bench)
    withdraw(bench, first)
    assert [] == counting(bench)


def test_a_correction_is_kept_as_a_draft_when_another_label_counts_by_then(bench: Bench) -> None:
    """The lease for it ran out, Bob has corrected the label meanwhile."""
    first = hand_in(bench, take(bench))
    mine = take_again(bench, first.case_id)
    bench.later(hours=5)
    bobs = take_again(bench, first.case_id, BOB)
    hand_in(bench, bobs, BOB, receipt=other_mask("bobs", bobs))
    assert ReviewState.DRAFT == hand_in(bench, mine, receipt=other_mask("mine", mine)).review_state
    assert ["bobs"] == counting(bench)


def test_a_correction_goes_on_when_its_label_is_rejected(bench: Bench) -> None:
    """The label before it counts again, and the correction supersedes that one."""
    first = hand_in(bench, take(bench))
    again = take_again(bench, first.case_id)
    second = hand_in(bench, again, receipt=other_mask("m2", again))
    mine = take_again(bench, first.case_id)
    review(bench, second, REJECT)
    assert [first.mask_volume_id] == counting(bench)
    third = hand_in(bench, mine, receipt=other_mask("m3", mine, base="m2"))
    assert (ReviewState.ACCEPTED, first.submission_id, second.submission_id) == (
        third.review_state,
        third.supersedes_submission_id,
        third.started_from_submission_id,
    )


def test_a_correction_that_nobody_disturbed_counts_late_too(bench: Bench) -> None:
    """Its lease has expired, the label is still the one that it corrects."""
    first = hand_in(bench, take(bench))
    mine = take_again(bench, first.case_id)
    bench.later(hours=5)
    assert ReviewState.ACCEPTED == hand_in(bench, mine, receipt=other_mask("mine", mine)).review_state


def test_a_correction_does_not_calibrate_the_minutes(bench: Bench) -> None:
    """16 minutes for 8 predicted make a factor of 2 ** (1/6); a correction of one minute leaves it out of account."""
    details = take(bench)
    bench.later(minutes=20)
    first = hand_in(bench, details, time_segments=(measured(START, 960.0),))
    with bench.store.read() as uow:
        assert 2 ** (1 / 6) == pytest.approx(minutes_factor(uow, bench.project_id))
    again = take_again(bench, first.case_id)
    bench.later(minutes=2)
    segment = measured(START + timedelta(minutes=20), 60.0)
    coarse = details.case.coarse_label
    assert coarse is not None
    hand_in(bench, again, receipt=other_mask("m2", again, base=coarse.mask_volume_id), time_segments=(segment,))
    with bench.store.read() as uow:
        assert 1.0 == pytest.approx(minutes_factor(uow, bench.project_id))


def test_a_correction_wakes_a_complete_project(bench: Bench) -> None:
    """It opens a round of its own, which the project goes on with."""
    first = hand_in(bench, take(bench))
    with bench.store.write() as uow:
        uow.rounds.get(bench.project_id, 1)
        uow.rounds.update(round_of(bench.project_id, 1, RoundState.CLOSED))
        uow.projects.update(replace(uow.projects.get(bench.project_id), state=ProjectState.COMPLETE))
    again = take_again(bench, first.case_id)
    assert 2 == hand_in(bench, again, receipt=other_mask("m2", again)).round
    with bench.store.read() as uow:
        assert ProjectState.ACTIVE == uow.projects.get(bench.project_id).state


# -- reviews


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
        projects.close_registration(uow, ALICE, bench.project_id)
        held_out = {case.case_id for case in uow.cases.all(bench.project_id) if case.held_out}
    assert 2 == len(held_out)
    assert stored.case_id not in held_out


# -- late labels


def test_a_late_label_counts_once_a_reviewer_accepts_it(bench: Bench) -> None:
    """With its time, as far as the case was held; nobody has it by then."""
    late = late_label(bench, time_segments=(measured(START, 600.0),))
    judged = review(bench, late, ACCEPT)
    assert (ReviewState.ACCEPTED, CaseState.LABELLED) == (judged.submission.review_state, judged.case.state)
    assert ["late"] == counting(bench)
    with bench.store.read() as uow:
        assert 10.0 == pytest.approx(ledger.report(uow, ALICE, bench.project_id).ledger.minutes_total)


def test_time_that_a_late_label_cannot_have_taken_is_not_booked(bench: Bench) -> None:
    """Six hours on a lease of four: the label counts all the same."""
    late = late_label(bench, time_segments=(measured(START, 6 * 3600.0),))
    assert () == review(bench, late, ACCEPT).submission.time_segments
    with bench.store.read() as uow:
        assert 0.0 == ledger.report(uow, ALICE, bench.project_id).ledger.minutes_total


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


# -- looking, wrong input


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

    assert [second.submission_id] == listed(states=frozenset({ReviewState.PENDING}))
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
        assert [first.submission_id] == [each.submission_id for each in _started_from(uow, bench.project_id, MODEL)]
    again = take_again(bench, first.case_id)
    hand_in(bench, again, receipt=other_mask("m2", again, base=first.mask_volume_id))
    with bench.store.read() as uow:
        assert [] == _started_from(uow, bench.project_id, MODEL)
