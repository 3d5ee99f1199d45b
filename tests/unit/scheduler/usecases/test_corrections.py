"""Labels that are taken back or corrected: exactly one label of a case counts, or none."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from rekindle.errors import IllegalTransition, PermissionDenied
from rekindle_scheduler.domain.enums import CaseState, ProjectState, ReviewState, RoundState
from rekindle_scheduler.usecases import ledger, rounds
from rekindle_scheduler.usecases.ledger import minutes_factor
from scheduler_labels import (
    CARLA,
    REJECT,
    case_of,
    counting,
    freeze,
    hand_in,
    other_mask,
    review,
    take,
    take_again,
    tally,
    withdraw,
)
from scheduler_ports import BOB, START, Bench, measured, round_of


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
        assert 5.0 == pytest.approx(ledger.report(uow, bench.project_id).ledger.minutes_total)
        assert 0 == rounds.get_round(uow, bench.project_id, 1).round.labelled_cases


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
        assert 1 == rounds.get_round(uow, bench.project_id, 1).round.labelled_total


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
