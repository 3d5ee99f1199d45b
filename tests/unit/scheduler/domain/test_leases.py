"""Leases: expiry, renewal, and which submission counts."""

from __future__ import annotations

from datetime import timedelta
from itertools import product
from types import SimpleNamespace

import pytest
from rekindle.errors import IllegalTransition, InvalidInput, LeaseLost
from rekindle_scheduler.domain.enums import CaseMark, CaseState, LeaseState
from rekindle_scheduler.domain.leases import (
    case_state,
    check_leasable,
    check_revisable,
    decide_submission,
    held_until,
    is_live,
    lease_end,
    renewed_end,
    resumed_end,
)
from rekindle_scheduler.domain.policy import Policy

HOUR = timedelta(hours=1)
POLICY = Policy(lease_duration=4 * HOUR)


def test_duration_of_the_policy_or_the_request(make: SimpleNamespace):
    """Without a wish the policy's duration counts."""
    assert make.noon + 4 * HOUR == lease_end(POLICY, None, make.noon)
    assert make.noon + HOUR == lease_end(POLICY, HOUR, make.noon)


@pytest.mark.parametrize("wish", [timedelta(0), -HOUR, timedelta(seconds=59), timedelta(days=31)])
def test_durations_out_of_bounds_are_refused(make: SimpleNamespace, wish: timedelta):
    """Neither a blink nor for ever."""
    with pytest.raises(InvalidInput) as caught:
        lease_end(POLICY, wish, make.noon)
    assert ["duration"] == [violation.field for violation in caught.value.violations]


@pytest.mark.parametrize(("hours", "expected"), [(0, True), (3.99, True), (4, False), (5, False)])
def test_a_lease_lives_until_its_end(make: SimpleNamespace, hours: float, expected: bool):
    """At the very moment of expiry it is over."""
    assert expected == is_live(make.lease(), make.noon + hours * HOUR)


def test_renewal_moves_the_end(make: SimpleNamespace):
    """From now on for the duration, but never to an earlier end."""
    assert make.noon + 6 * HOUR == renewed_end(make.lease(), 1, POLICY, None, make.noon + 2 * HOUR)
    assert make.noon + 4 * HOUR == renewed_end(make.lease(), 1, POLICY, HOUR, make.noon + HOUR)


@pytest.mark.parametrize(
    ("changes", "token", "hours", "words"),
    [
        ({}, 2, 1, "token"),
        ({}, 1, 4, "expired"),
        ({"state": LeaseState.EXPIRED}, 1, 1, "expired"),
        ({"state": LeaseState.RELEASED}, 1, 1, "given back"),
        ({"state": LeaseState.SUBMITTED}, 1, 1, "submission"),
    ],
)
def test_lost_leases_are_not_renewed(make: SimpleNamespace, changes, token, hours, words):
    """An ended lease or a foreign token raises LeaseLost and says which."""
    with pytest.raises(LeaseLost, match=words):
        renewed_end(make.lease(**changes), token, POLICY, None, make.noon + hours * HOUR)


@pytest.mark.parametrize(
    ("case", "lease", "token", "words"),
    [
        ({"state": CaseState.LEASED, "fencing_token": 1}, {}, 1, None),
        ({"state": CaseState.READY, "fencing_token": 1}, {"state": LeaseState.EXPIRED}, 1, None),
        ({"state": CaseState.PUT_OFF, "fencing_token": 1}, {"state": LeaseState.EXPIRED}, 1, None),
        ({"state": CaseState.LEASED, "fencing_token": 2}, {}, 1, "somebody else"),
        ({"state": CaseState.READY, "fencing_token": 2}, {"state": LeaseState.EXPIRED}, 1, "somebody else"),
        ({"state": CaseState.LEASED, "fencing_token": 2}, {}, 2, "token is not this lease's"),
        ({"state": CaseState.LABELLED, "fencing_token": 1, "submission_id": "s"}, {}, 1, "labelled meanwhile"),
        ({"state": CaseState.READY, "fencing_token": 1}, {"state": LeaseState.RELEASED}, 1, "given back"),
        (
            {"state": CaseState.READY, "fencing_token": 1},
            {"state": LeaseState.SUBMITTED},
            1,
            "ended with its submission",
        ),
        ({"state": CaseState.IN_REVIEW, "fencing_token": 1, "pending_submission_id": "p"}, {}, 1, "for a reviewer"),
        # To correct the label s: good while s counts, or none; not where another label does.
        ({"fencing_token": 1, "submission_id": "s"}, {"revises_submission_id": "s"}, 1, None),
        ({"fencing_token": 1}, {"revises_submission_id": "s"}, 1, None),
        ({"fencing_token": 1, "submission_id": "t"}, {"revises_submission_id": "s"}, 1, "labelled meanwhile"),
        ({"fencing_token": 2, "submission_id": "s"}, {"revises_submission_id": "s"}, 1, "somebody else"),
    ],
)
def test_submissions(make: SimpleNamespace, case, lease, token: int, words: str | None):
    """The newest token on an unlabelled case counts, even late; anything else becomes a draft that says why."""
    verdict = decide_submission(make.case(1, **case), make.lease(**lease), token)
    assert (words is None) == verdict.accepted
    assert (words or "") in verdict.reason
    assert verdict.accepted or "draft" in verdict.reason


@pytest.mark.parametrize("state", list(CaseState))
def test_only_ready_cases_are_leased(make: SimpleNamespace, state: CaseState):
    """Every other state is refused."""
    if state == CaseState.READY:
        check_leasable(make.case(1, state=state))
    else:
        with pytest.raises(IllegalTransition):
            check_leasable(make.case(1, state=state))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"submission_id": "s"}, None),
        ({"submission_id": "s", "is_held": True}, "CASE_LEASED"),
        ({"submission_id": "s", "pending_submission_id": "p"}, "CASE_IN_REVIEW"),
        ({}, "CASE_NOT_LABELLED"),
    ],
)
def test_only_a_label_that_nobody_touches_is_corrected(make: SimpleNamespace, changes, reason: str | None):
    """One that counts, with no correction of it held or in review."""
    case = make.case(1, **changes)
    if reason is None:
        check_revisable(case)
    else:
        with pytest.raises(IllegalTransition) as refused:
            check_revisable(case)
        assert reason == refused.value.reason


@pytest.mark.parametrize(
    ("lease", "case", "hours", "expected"),
    [
        ({}, {}, 1, 5),
        ({"expire_time_hours": 30}, {}, 1, 30),
        ({}, {}, 9, 13),
        ({"state": LeaseState.RELEASED}, {}, 1, None),
        ({"state": LeaseState.SUBMITTED}, {}, 1, None),
        ({}, {"fencing_token": 2}, 9, None),
        ({}, {"submission_id": "s"}, 9, None),
    ],
)
def test_what_can_be_taken_up(make: SimpleNamespace, lease, case, hours: int, expected: int | None):
    """What lives or has run out unnoticed, for the policy's four hours at least; nothing that has ended or is lost."""
    changes = {**lease}
    if "expire_time_hours" in changes:
        changes["expire_time"] = make.noon + changes.pop("expire_time_hours") * HOUR
    held, now = make.lease(**changes), make.noon + hours * HOUR
    if expected is None:
        with pytest.raises(LeaseLost):
            resumed_end(make.case(1, **{"fencing_token": 1, **case}), held, POLICY, now)
    else:
        end = resumed_end(make.case(1, **{"fencing_token": 1, **case}), held, POLICY, now)
        assert make.noon + expected * HOUR == end


@pytest.mark.parametrize(("labelled", "leased", "predicted"), list(product([True, False], repeat=3)))
@pytest.mark.parametrize("mark", list(CaseMark))
def test_case_state(labelled: bool, leased: bool, predicted: bool, mark: CaseMark):
    """A label outweighs a lease, a lease outweighs being put off."""
    expected = (
        ("labelled" if labelled else "")
        or ("leased" if leased else "")
        or ("put_off" if mark == "put_off" else "")
        or ("ready" if predicted else "registered")
    )
    assert expected == case_state(labelled=labelled, leased=leased, predicted=predicted, mark=mark)
    in_review = case_state(labelled=labelled, leased=leased, predicted=predicted, mark=mark, in_review=True)
    assert ("labelled" if labelled else "in_review") == in_review


def test_time_is_booked_up_to_the_leases_end(make: SimpleNamespace):
    """A lease that ended earlier does not gain time by a late call."""
    now = make.noon + 3 * HOUR
    assert now == held_until(make.lease(), now)
    assert make.noon + HOUR == held_until(make.lease(end_time=make.noon + HOUR), now)
