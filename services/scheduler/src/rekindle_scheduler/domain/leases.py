"""Leases: how long they last, who may renew them, and whether a submission still counts."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from rekindle.errors import IllegalTransition, InvalidInput, LeaseLost

from rekindle_scheduler.domain.cases import Case
from rekindle_scheduler.domain.enums import CaseMark, CaseState, LeaseState
from rekindle_scheduler.domain.policy import Policy, lease_violations
from rekindle_scheduler.domain.records import Lease


@dataclass(frozen=True, kw_only=True)
class SubmissionVerdict:
    """Whether a label counts; one that does not is kept as a draft."""

    accepted: bool
    #: Reason why it does not, for the annotator; empty when it does.
    reason: str = ""


def lease_end(policy: Policy, requested: timedelta | None, now: datetime) -> datetime:
    """When a lease taken or renewed now expires. InvalidInput for a duration outside 1 minute to 30 days."""
    duration = policy.lease_duration if requested is None else requested
    violations = lease_violations("duration", duration)
    if violations:
        raise InvalidInput(f"the lease's duration {violations[0].description}", violations=violations)
    return now + duration


def is_live(lease: Lease, now: datetime) -> bool:
    """Whether the lease still keeps others away."""
    return lease.state == LeaseState.LIVE and now < lease.expire_time


def check_leasable(case: Case) -> None:
    """IllegalTransition, in words, for a case that cannot be leased now; any READY case may be leased."""
    match case.state:
        case CaseState.IN_REVIEW:
            raise IllegalTransition("the case is labelled and waits for a reviewer", reason="CASE_IN_REVIEW")
        case CaseState.READY:
            return
        case CaseState.LABELLED:
            raise IllegalTransition("the case is labelled already", reason="CASE_LABELLED")
        case CaseState.LEASED:
            raise IllegalTransition("somebody holds the case: take another one", reason="CASE_LEASED")
        case CaseState.REGISTERED:
            raise IllegalTransition("the case has no coarse label yet", reason="CASE_NOT_PREDICTED")
        case CaseState.PURGED:
            raise IllegalTransition("the case was erased", reason="PURGED")
        case CaseState.PUT_OFF:
            raise IllegalTransition("the case is put off: clear its mark first", reason="CASE_PUT_OFF")


def check_revisable(case: Case) -> None:
    """IllegalTransition, in words, for a case whose label cannot be corrected now."""
    if case.pending_submission_id is not None:
        raise IllegalTransition(
            "a label of the case waits for a reviewer: have it reviewed or withdraw it first", reason="CASE_IN_REVIEW"
        )
    if case.submission_id is None:
        raise IllegalTransition("the case has no label to correct: lease it without revise", reason="CASE_NOT_LABELLED")
    if case.is_held:
        raise IllegalTransition("somebody corrects the label at the moment: take another one", reason="CASE_LEASED")


def case_state(*, labelled: bool, leased: bool, predicted: bool, mark: CaseMark, in_review: bool = False) -> CaseState:
    """Labelled before leased, leased before put off: what it is matters more than what it is marked as."""
    if labelled:
        return CaseState.LABELLED
    if in_review:
        return CaseState.IN_REVIEW
    if leased:
        return CaseState.LEASED
    if mark == CaseMark.PUT_OFF:
        return CaseState.PUT_OFF
    return CaseState.READY if predicted else CaseState.REGISTERED


def renewed_end(
    lease: Lease, fencing_token: int, policy: Policy, requested: timedelta | None, now: datetime
) -> datetime:
    """When the renewed lease expires, never earlier than before. LeaseLost when it is gone."""
    if fencing_token != lease.fencing_token:
        raise LeaseLost("the fencing token is not this lease's: take up the lease again")
    if not is_live(lease, now):
        raise LeaseLost(f"the lease {_ended(lease)}: lease the case again")
    return max(lease.expire_time, lease_end(policy, requested, now))


def decide_submission(case: Case, lease: Lease, fencing_token: int) -> SubmissionVerdict:
    """Accept while no later lease holds the case, even after this one's expiry: a delay loses no work.

    Refused, and so kept as a draft: an old token, a case that was labelled since, a lease that has ended with a
    submission or was released. A lease to correct a label is good while that label counts, or none does.
    """
    if case.pending_submission_id is not None:
        return _draft("a label of the case waits for a reviewer")
    if case.submission_id is not None and case.submission_id != lease.revises_submission_id:
        return _draft("the case was labelled meanwhile")
    if fencing_token != lease.fencing_token:
        return _draft("the fencing token is not this lease's")
    if fencing_token != case.fencing_token:
        return _draft("the lease expired and somebody else took the case")
    if lease.state == LeaseState.RELEASED:
        return _draft("the lease was given back before")
    if lease.state == LeaseState.SUBMITTED:
        return _draft("the lease has ended with its submission")
    return SubmissionVerdict(accepted=True)


def resumed_end(case: Case, lease: Lease, policy: Policy, now: datetime) -> datetime:
    """When a resumed lease expires, never earlier than before.

    An expired lease can be resumed while no other lease holds the case. LeaseLost otherwise.
    """
    if lease.state in (LeaseState.SUBMITTED, LeaseState.RELEASED):
        raise LeaseLost(f"the lease {_ended(lease)}: lease the case again")
    verdict = decide_submission(case, lease, lease.fencing_token)
    if not verdict.accepted:
        raise LeaseLost("the lease has expired and the case is not free any more: lease another one")
    return max(lease.expire_time, now + policy.lease_duration)


def held_until(lease: Lease, now: datetime) -> datetime:
    """Until when time on the case may be booked: now, or the lease's end where that came before."""
    return min(now, lease.end_time) if lease.end_time is not None else now


def _draft(reason: str) -> SubmissionVerdict:
    return SubmissionVerdict(accepted=False, reason=f"{reason}: the label is kept as a draft")


def _ended(lease: Lease) -> str:
    match lease.state:
        case LeaseState.SUBMITTED:
            return "ended with its submission"
        case LeaseState.RELEASED:
            return "was given back"
        case _:
            return "has expired"
