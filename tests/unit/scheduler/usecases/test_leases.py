"""Leases and submissions: who holds a case, what counts, what is kept, what is refused."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from rekindle.errors import IllegalTransition, InvalidInput, LeaseLost, NotFound, PermissionDenied
from rekindle_scheduler.domain.enums import CaseMark, CaseState, ReviewState, RoundState
from rekindle_scheduler.domain.ids import LeaseId, ProjectId
from rekindle_scheduler.usecases import cases, leases, ledger, rounds, submissions
from scheduler_ports import ALICE, BOB, START, Bench, label, measured, receipt, round_of, states


def take(bench: Bench, principal: Any = ALICE) -> leases.LeaseDetails:
    with bench.store.write() as uow:
        outcome = leases.lease_next_case(uow, principal, bench.project_id, None)
    assert isinstance(outcome, leases.LeaseDetails)
    return outcome


def submit(bench: Bench, details: leases.LeaseDetails, principal: Any = ALICE, **changes: Any) -> Any:
    with bench.store.write() as uow:
        return submissions.submit(uow, principal, bench.project_id, *label(details, **changes))


def test_an_accepted_label_labels_its_case(bench: Bench) -> None:
    """The case is labelled, the lease has ended, the effort and the version are the receipt's."""
    details = take(bench)
    stored = submit(bench, details)
    assert (ReviewState.ACCEPTED, 1, 1) == (stored.review_state, stored.revision, stored.round)
    assert "model-1" == stored.coarse_model_version_id
    assert [7] == [effort.voxels_changed for effort in stored.effort]
    with bench.store.read() as uow:
        assert CaseState.LABELLED == uow.cases.get(bench.project_id, details.case.case_id).state
        assert [] == leases.my_leases(uow, ALICE, bench.project_id)


def test_a_late_label_counts_while_nobody_took_the_case(bench: Bench) -> None:
    """The lease has expired, its token is still the newest: the work is not lost."""
    details = take(bench)
    bench.later(hours=5)
    assert ReviewState.ACCEPTED == submit(bench, details).review_state


def test_a_late_labels_measured_time_counts_too(bench: Bench) -> None:
    """Five hours of work on a lease of four, which nobody took since: the case was the annotator's all along."""
    details = take(bench)
    bench.later(hours=5)
    late = submit(bench, details, time_segments=(measured(START, 4.5 * 3600),))
    assert ReviewState.ACCEPTED == late.review_state


def test_a_label_under_an_old_token_is_kept_as_a_draft(bench: Bench) -> None:
    """Bob holds the case by now: Alice's label does not count, labels nothing and books no minutes."""
    old = take(bench)
    bench.later(hours=5)
    new = take(bench, BOB)
    assert old.case.case_id == new.case.case_id
    draft = submit(bench, old, time_segments=(measured(START, 60.0),))
    assert ReviewState.DRAFT == draft.review_state
    with bench.store.read() as uow:
        assert CaseState.LEASED == uow.cases.get(bench.project_id, old.case.case_id).state
        assert 0.0 == ledger.report(uow, bench.project_id).ledger.minutes_total
    accepted = submit(bench, new, BOB)
    assert (ReviewState.ACCEPTED, 2) == (accepted.review_state, accepted.revision)


def test_somebody_elses_lease_cannot_be_used(bench: Bench) -> None:
    """Neither for a label nor to renew or release it."""
    details = take(bench)
    with pytest.raises(PermissionDenied):
        submit(bench, details, BOB)
    lease = details.lease
    with bench.store.write() as uow, pytest.raises(PermissionDenied):
        leases.renew_lease(uow, BOB, bench.project_id, lease.lease_id, lease.fencing_token, None)


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"organ_states": states(liver="edited")}, "organ_states"),
        ({"organ_states": states(liver="edited", spleen="edited", kidney="edited")}, "organ_states[2]"),
        ({"organ_states": states(liver="edited", spleen="absent")}, "organ_states[1]"),
        ({"receipt": receipt("v1", spleen=0)}, "organ_states[1]"),
        ({"receipt": receipt("v2")}, "receipt_id"),
        ({"receipt": receipt("v1", coarse="coarse label of nobody")}, "receipt_id"),
        ({"time_segments": (measured(START, -1.0),)}, "time_segments[0].active_seconds"),
        ({"time_segments": (measured(START, float("nan")),)}, "time_segments[0].active_seconds"),
        ({"time_segments": (measured(START, 601.0),)}, "time_segments"),
    ],
)
def test_a_label_that_contradicts_itself_is_refused(bench: Bench, changes: dict[str, Any], field: str) -> None:
    """The violation names the field, and nothing is stored."""
    details = take(bench)
    bench.later(minutes=10)
    with pytest.raises(InvalidInput) as refused:
        submit(bench, details, **changes)
    assert field == refused.value.violations[0].field
    with bench.store.read() as uow:
        assert [] == uow.submissions.of_case(details.case.case_id)


@pytest.mark.parametrize("status", ["absent", "out_of_view", "not_reviewed"])
def test_an_empty_organ_needs_its_status(bench: Bench, status: str) -> None:
    """Absent, out of view and not reviewed go with an empty mask."""
    details = take(bench)
    empty = receipt("v1", spleen=0)
    stored = submit(bench, details, receipt=empty, organ_states=states(liver="edited", spleen=status))
    assert ReviewState.ACCEPTED == stored.review_state


def test_measured_time_on_two_cases_may_not_overlap(bench: Bench) -> None:
    """Ten minutes on each of two cases do not fit into the same ten minutes."""
    first, second = take(bench), take(bench)
    bench.later(minutes=20)
    submit(bench, first, time_segments=(measured(START, 600.0),))
    with pytest.raises(InvalidInput) as refused:
        submit(bench, second, time_segments=(measured(START + timedelta(minutes=5), 600.0),))
    assert "TIME_NOT_PLAUSIBLE" == refused.value.reason
    submit(bench, second, time_segments=(measured(START + timedelta(minutes=10), 600.0),))
    with bench.store.read() as uow:
        assert 20.0 == pytest.approx(ledger.report(uow, bench.project_id).ledger.minutes_total)


def test_time_on_a_released_case_is_booked(bench: Bench) -> None:
    """Without a label, and the case is free again."""
    details = take(bench)
    bench.later(minutes=10)
    lease = details.lease
    with bench.store.write() as uow:
        leases.release_lease(
            uow,
            ALICE,
            bench.project_id,
            lease.lease_id,
            lease.fencing_token,
            reason="phone",
            segments=[measured(START, 120.0)],
        )
    assert details.case.case_id == take(bench, BOB).case.case_id
    with bench.store.read() as uow:
        assert 2.0 == pytest.approx(ledger.report(uow, bench.project_id).ledger.minutes_total)


def test_a_lease_is_renewed_until_it_expires(bench: Bench) -> None:
    """The new end counts from now; after the expiry, or with an old token, the lease is lost."""
    lease = take(bench).lease
    bench.later(hours=3)
    with bench.store.write() as uow:
        renewed = leases.renew_lease(
            uow, ALICE, bench.project_id, lease.lease_id, lease.fencing_token, timedelta(hours=2)
        )
        assert START + timedelta(hours=5) == renewed.lease.expire_time
        with pytest.raises(LeaseLost):
            leases.renew_lease(uow, ALICE, bench.project_id, lease.lease_id, lease.fencing_token + 1, None)
    bench.later(hours=3)
    with bench.store.write() as uow, pytest.raises(LeaseLost):
        leases.renew_lease(uow, ALICE, bench.project_id, lease.lease_id, lease.fencing_token, None)


def test_a_case_of_a_round_that_is_not_open_is_refused(bench: Bench) -> None:
    """The caller named round 7 while round 1 is open."""
    case_id = take(bench).case.case_id
    with bench.store.write() as uow, pytest.raises(IllegalTransition) as refused:
        leases.lease_case(uow, ALICE, bench.project_id, case_id, None, 7)
    assert "ROUND_NOT_OPEN" == refused.value.reason


@pytest.mark.parametrize("duration", [timedelta(seconds=1), timedelta(days=31), timedelta(0)])
def test_a_lease_of_a_senseless_length_is_refused(bench: Bench, duration: timedelta) -> None:
    """One minute to thirty days."""
    with bench.store.write() as uow, pytest.raises(InvalidInput) as refused:
        leases.lease_next_case(uow, ALICE, bench.project_id, duration)
    assert "duration" == refused.value.violations[0].field


def test_why_there_is_no_case_is_told(bench: Bench) -> None:
    """Taken while others hold them, preparing while nothing is open, complete at the end."""
    first, second = take(bench), take(bench)
    assert leases.NoCaseReason.ROUND_TAKEN == _none(bench)
    submit(bench, first)
    submit(bench, second)
    assert leases.NoCaseReason.COMPLETE == _none(bench)
    bench.register("v3")
    assert leases.NoCaseReason.PREPARING == _none(bench)


def test_a_put_off_case_is_not_handed_out(bench: Bench) -> None:
    """Until its mark is cleared."""
    with bench.store.write() as uow:
        first, second = (case.case_id for case in uow.cases.all(bench.project_id))
        cases.mark_case(uow, bench.project_id, first, CaseMark.PUT_OFF)
    assert second == take(bench).case.case_id
    with bench.store.write() as uow:
        cases.mark_case(uow, bench.project_id, first, CaseMark.NONE)
    assert first == take(bench).case.case_id


def test_a_label_that_comes_while_nothing_is_open_opens_the_next_round(bench: Bench) -> None:
    """Round 1 is in training by then, so the label counts for round 2."""
    details = take(bench)
    with bench.store.write() as uow:
        current = uow.rounds.get(bench.project_id, 1)
        uow.rounds.update(round_of(bench.project_id, current.number, RoundState.TRAINING))
    assert 2 == submit(bench, details).round
    with bench.store.read() as uow:
        assert RoundState.SELECTING == rounds.get_round(uow, bench.project_id, 2).round.state


def test_what_is_not_of_the_project_is_not_found(bench: Bench) -> None:
    """Leases, cases, rounds and projects."""
    other = ProjectId("00000000-0000-4000-8000-000000000000")
    lease = take(bench).lease
    with bench.store.write() as uow:
        with pytest.raises(NotFound):
            leases.own_lease(uow, ALICE, other, lease.lease_id)
        with pytest.raises(NotFound):
            leases.own_lease(uow, ALICE, bench.project_id, LeaseId("nobody"))
        with pytest.raises(NotFound):
            cases.get_case(uow, other, lease.case_id)
        with pytest.raises(NotFound):
            rounds.get_round(uow, bench.project_id, 9)
        with pytest.raises(NotFound):
            leases.lease_next_case(uow, ALICE, other, None)


def _none(bench: Bench) -> leases.NoCaseReason:
    with bench.store.write() as uow:
        outcome = leases.lease_next_case(uow, BOB, bench.project_id, None)
    assert isinstance(outcome, leases.NoCase)
    return outcome.reason
