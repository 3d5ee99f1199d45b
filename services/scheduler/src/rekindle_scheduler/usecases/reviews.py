"""Reviews and withdrawals of submissions."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rekindle.errors import InvalidInput, PermissionDenied
from rekindle_servicekit.permissions import Permission, permissions_of
from rekindle_servicekit.principal import Principal

from rekindle_scheduler.domain.cases import Case
from rekindle_scheduler.domain.enums import ReviewState, ReviewVerdict
from rekindle_scheduler.domain.events import EventKind
from rekindle_scheduler.domain.ids import ProjectId, SubmissionId
from rekindle_scheduler.domain.minutes import not_booked
from rekindle_scheduler.domain.records import Submission
from rekindle_scheduler.domain.reviews import (
    check_review,
    check_reviewer,
    check_withdrawal,
    standing_before,
)
from rekindle_scheduler.domain.text import check_text
from rekindle_scheduler.state import UnitOfWork
from rekindle_scheduler.usecases.ledger import book_submission, booked_for, check_time
from rekindle_scheduler.usecases.submissions import round_for, tell_of_label


@dataclass(frozen=True, kw_only=True)
class ReviewOutcome:
    """A label and its case, as they are now."""

    submission: Submission
    case: Case


def may_review(principal: Principal) -> bool:
    """Whether the caller may review what others submitted."""
    return Permission.REVIEW in permissions_of(principal.roles)


def review_submission(
    uow: UnitOfWork,
    principal: Principal,
    project_id: ProjectId,
    submission_id: SubmissionId,
    verdict: ReviewVerdict,
    *,
    comment: str,
    supersede: bool,
) -> ReviewOutcome:
    """Accept or reject a label that waits, one that came too late, or one that counts already."""
    check_text("comment", comment)
    if not may_review(principal):
        raise PermissionDenied("labels are reviewed by reviewers: you are none here", reason="NOT_A_REVIEWER")
    # Lock order: the project before the case.
    project = uow.projects.lock(project_id)
    case_id = uow.submissions.get(project_id, submission_id).case_id
    case = uow.cases.lock(project_id, case_id)
    submission = uow.submissions.get(project_id, submission_id)
    reviewer = uow.annotators.find_or_add(principal)
    check_reviewer(project.policy.review, submission, reviewer)
    check_review(case, submission, verdict, supersede=supersede)
    reviewed = replace(submission, reviewed_by=reviewer, review_time=uow.now, review_comment=comment)
    if verdict == ReviewVerdict.REJECT:
        _stop_counting(uow, case, replace(reviewed, review_state=ReviewState.REJECTED))
        tell_of_label(uow, reviewed, EventKind.LABEL_REJECTED, "a label was rejected by a reviewer")
    elif submission.review_state == ReviewState.ACCEPTED:
        uow.submissions.update(reviewed)
        uow.outbox.enqueue(project_id, case_id)
        tell_of_label(uow, reviewed, EventKind.LABEL_REVIEWED, "a label that counts was reviewed")
    else:
        accepted = _accept(uow, case, reviewed)
        tell_of_label(uow, accepted, EventKind.LABEL_ACCEPTED, "a label was accepted by a reviewer")
    return _judged(uow, submission)


def withdraw_submission(
    uow: UnitOfWork, principal: Principal, project_id: ProjectId, submission_id: SubmissionId, *, reason: str
) -> ReviewOutcome:
    """Take a label back; its case is open again, or the label before it counts again. Its time stays booked."""
    check_text("reason", reason)
    uow.projects.lock(project_id)
    case_id = uow.submissions.get(project_id, submission_id).case_id
    case = uow.cases.lock(project_id, case_id)
    submission = uow.submissions.get(project_id, submission_id)
    if submission.annotator_id != uow.annotators.find(principal) and not may_review(principal):
        raise PermissionDenied("a label is withdrawn by its annotator or by a reviewer", reason="NOT_YOUR_SUBMISSION")
    check_withdrawal(case, submission)
    withdrawn = replace(submission, review_state=ReviewState.WITHDRAWN, withdraw_time=uow.now, withdraw_reason=reason)
    _stop_counting(uow, case, withdrawn)
    tell_of_label(uow, withdrawn, EventKind.LABEL_WITHDRAWN, "a label was withdrawn")
    return _judged(uow, submission)


def _accept(uow: UnitOfWork, case: Case, reviewed: Submission) -> Submission:
    """The label counts from now on, for the round that is open now."""
    accepted = replace(
        reviewed,
        review_state=ReviewState.ACCEPTED,
        round=round_for(uow, reviewed.project_id),
        held_out=case.held_out,
        supersedes_submission_id=case.submission_id,
    )
    if reviewed.review_state == ReviewState.DRAFT:
        accepted = _book_late(uow, accepted)
    uow.submissions.update(accepted)
    uow.cases.set_submission(case.case_id, accepted.submission_id)
    uow.outbox.enqueue(case.project_id, case.case_id)
    if case.pending_submission_id == accepted.submission_id:
        uow.cases.set_pending(case.case_id, None)
    return accepted


def _book_late(uow: UnitOfWork, late: Submission) -> Submission:
    """Time of a label that came too late was not booked: now it is, where it fits what was held and booked."""
    assert late.lease_id is not None
    lease = uow.leases.get(late.project_id, late.lease_id)
    booked = booked_for(uow, lease)
    fresh = not_booked(late.time_segments, booked)
    try:
        check_time(uow, lease, fresh)
    except InvalidInput:
        message = "the time of a late label does not fit what was held: it is not booked"
        tell_of_label(uow, late, EventKind.TIME_NOT_BOOKED, message)
        fresh = ()
    uow.ledger.assign(lease.lease_id, late)
    book_submission(uow, late, fresh)
    return replace(late, time_segments=(*booked, *fresh))


def _stop_counting(uow: UnitOfWork, case: Case, submission: Submission) -> None:
    uow.submissions.update(submission)
    if case.pending_submission_id == submission.submission_id:
        uow.cases.set_pending(case.case_id, None)
    if case.submission_id == submission.submission_id:
        before = standing_before(submission, uow.submissions.of_case(case.case_id))
        uow.cases.set_submission(case.case_id, before)
        uow.outbox.enqueue(case.project_id, case.case_id)
        # A correction under way corrects the label that counts now.
        uow.leases.redirect(case.case_id, submission.submission_id, before)


def _judged(uow: UnitOfWork, submission: Submission) -> ReviewOutcome:
    return ReviewOutcome(
        submission=uow.submissions.get(submission.project_id, submission.submission_id),
        case=uow.cases.get(submission.project_id, submission.case_id),
    )
