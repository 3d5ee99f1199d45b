"""Short ways to take cases, hand labels in, and judge them, for tests of the scheduler's use cases."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from rekindle.vocabulary import Digest
from rekindle_scheduler.domain.cases import Case
from rekindle_scheduler.domain.enums import ReviewState, ReviewVerdict, RoundState
from rekindle_scheduler.domain.ids import CaseId, ReceiptId, VolumeId
from rekindle_scheduler.domain.records import Submission
from rekindle_scheduler.domain.volumes import Receipt
from rekindle_scheduler.usecases import drafts, leases, reviews, submissions
from rekindle_servicekit.principal import Principal
from scheduler_ports import ALICE, BOB, Bench, label, receipt, round_of, states

CARLA = Principal(issuer="test", subject="carla", display_name="Carla", roles=frozenset({"reviewer"}))
ACCEPT, REJECT = ReviewVerdict.ACCEPT, ReviewVerdict.REJECT


def take(bench: Bench, principal: Principal = ALICE) -> leases.LeaseDetails:
    """The next case."""
    with bench.store.write() as uow:
        outcome = leases.lease_next_case(uow, principal, bench.project_id, None)
    assert isinstance(outcome, leases.LeaseDetails), outcome
    return outcome


def take_again(bench: Bench, case_id: CaseId, principal: Principal = ALICE) -> leases.LeaseDetails:
    """A labelled case, to correct its label."""
    with bench.store.write() as uow:
        return leases.lease_case(uow, principal, bench.project_id, case_id, None, 0, revise=True)


def hand_in(bench: Bench, details: leases.LeaseDetails, principal: Principal = ALICE, **changes: Any) -> Submission:
    """A sound label."""
    with bench.store.write() as uow:
        return submissions.submit(uow, principal, bench.project_id, *label(details, **changes))


def save(
    bench: Bench,
    details: leases.LeaseDetails,
    principal: Principal = ALICE,
    *,
    note: str = "",
    extend: bool = False,
    **changes: Any,
) -> drafts.SavedDraft:
    """A draft of a sound label, unless it is changed."""
    fields = {"organ_states": states(liver="edited"), **changes}
    with bench.store.write() as uow:
        work = label(details, **fields)
        return drafts.save_draft(uow, principal, bench.project_id, *work, note=note, extend=extend)


def take_up(bench: Bench, details: leases.LeaseDetails, principal: Principal = ALICE) -> drafts.ResumedLease:
    """The same lease in another tool."""
    with bench.store.write() as uow:
        return drafts.resume_lease(uow, principal, bench.project_id, details.lease.lease_id, "another tool")


def review(bench: Bench, which: Submission, verdict: ReviewVerdict, principal: Principal = CARLA, **more: Any) -> Any:
    """Judge a label."""
    fields = {"comment": "", "supersede": False, **more}
    with bench.store.write() as uow:
        return reviews.review_submission(uow, principal, bench.project_id, which.submission_id, verdict, **fields)


def withdraw(bench: Bench, which: Submission, principal: Principal = ALICE) -> reviews.ReviewOutcome:
    """Take a label back."""
    with bench.store.write() as uow:
        return reviews.withdraw_submission(uow, principal, bench.project_id, which.submission_id, reason="wrong organ")


def case_of(bench: Bench, case_id: CaseId) -> Case:
    """As it is now."""
    with bench.store.read() as uow:
        return uow.cases.get(bench.project_id, case_id)


def counting(bench: Bench) -> list[str]:
    """The masks that count."""
    with bench.store.read() as uow:
        return [each.mask_volume_id for each in uow.submissions.counting(bench.project_id)]


def other_mask(name: str, details: leases.LeaseDetails, *, base: str | None = None) -> Receipt:
    """The receipt of another mask on the case's volume, measured against the mask `base`."""
    known = receipt(details.case.volume_id, coarse=base)
    return replace(
        known,
        receipt_id=ReceiptId(f"receipt {name}"),
        mask_volume_id=VolumeId(name),
        mask_digest=Digest(name.encode().hex().rjust(64, "0")),
    )


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
