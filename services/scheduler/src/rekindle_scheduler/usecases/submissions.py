"""Submissions: store a corrected label, or keep it as a draft when its lease is lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import fsum
from uuid import uuid4

from rekindle.errors import FieldViolation
from rekindle.vocabulary import OrganState, TimeSegment
from rekindle_servicekit.principal import Principal

from rekindle_scheduler.domain.cases import Case
from rekindle_scheduler.domain.enums import LeaseState, ProjectState, ReviewState
from rekindle_scheduler.domain.events import Event, EventKind
from rekindle_scheduler.domain.ids import LeaseId, ModelVersionId, ProjectId, SubmissionId
from rekindle_scheduler.domain.leases import decide_submission
from rekindle_scheduler.domain.minutes import not_booked
from rekindle_scheduler.domain.records import Lease, Submission
from rekindle_scheduler.domain.volumes import Receipt
from rekindle_scheduler.state import SubmissionFilter, UnitOfWork
from rekindle_scheduler.usecases.leases import counting_round, open_head, own_lease
from rekindle_scheduler.usecases.ledger import book_submission, booked_for, check_time
from rekindle_scheduler.usecases.organs import check_states, refuse
from rekindle_scheduler.usecases.rounds import begin_round


@dataclass(frozen=True, kw_only=True)
class Label:
    """What an annotator submits under a lease."""

    lease_id: LeaseId
    fencing_token: int
    organ_states: tuple[OrganState, ...]
    time_segments: tuple[TimeSegment, ...]


@dataclass(frozen=True, kw_only=True)
class Base:
    """What a mask was corrected from, as its receipt measures: a coarse label, another label, or nothing."""

    model_version_id: ModelVersionId | None = None
    submission_id: SubmissionId | None = None


def submit(uow: UnitOfWork, principal: Principal, project_id: ProjectId, label: Label, receipt: Receipt) -> Submission:
    """The label as stored. In review state DRAFT where the lease is lost: it is kept and does not count."""
    lease = own_lease(uow, principal, project_id, label.lease_id)
    # Lock order: the project before the case.
    project = uow.projects.lock(project_id)
    case = uow.cases.lock(project_id, lease.case_id)
    # Read again: the lease may have been released, or redirected to another label, before the locks were ours.
    lease = uow.leases.get(project_id, lease.lease_id)
    base = base_of(uow, case, receipt)
    check_states(project.organs, label.organ_states, receipt.voxels)
    verdict = decide_submission(case, lease, label.fencing_token)
    if not verdict.accepted:
        late = _submission(uow, lease, case, label, receipt, base, ReviewState.DRAFT)
        return _keep(uow, late, verdict.reason)
    booked = booked_for(uow, lease)
    fresh = not_booked(label.time_segments, booked)
    # No lease came after this one, so the case was this annotator's until now, expired or not.
    check_time(uow, lease, fresh, until=uow.now)
    state = ReviewState.PENDING if project.policy.review.required else ReviewState.ACCEPTED
    submission = replace(
        _submission(uow, lease, case, label, receipt, base, state),
        round=round_for(uow, project_id),
        supersedes_submission_id=case.submission_id,
        time_segments=(*booked, *fresh),
    )
    return _take(uow, lease, submission, fresh)


def list_submissions(
    uow: UnitOfWork,
    principal: Principal,
    project_id: ProjectId,
    wanted: SubmissionFilter,
    *,
    mine: bool = False,
    after: int,
    limit: int,
) -> list[tuple[int, Submission]]:
    """Submissions in the order in which they came, drafts too, each with its place in it."""
    uow.projects.get(project_id)
    if wanted.case_id is not None:
        uow.cases.get(project_id, wanted.case_id)
    if mine:
        annotator_id = uow.annotators.find(principal)
        if annotator_id is None:
            return []
        wanted = replace(wanted, annotator_id=annotator_id)
    return uow.submissions.page(project_id, wanted, after=after, limit=limit)


def base_of(uow: UnitOfWork, case: Case, receipt: Receipt) -> Base:
    """What the receipt measures against: a coarse label of the case, another label of it, or nothing.

    InvalidInput where it is neither, or where the mask lies on another image.
    """
    violations: list[FieldViolation] = []
    if receipt.image_volume_id != case.volume_id:
        violations.append(FieldViolation("receipt_id", "is of a mask on another volume than the case's"))
    base, mask_id = Base(), receipt.coarse_mask_volume_id
    if mask_id is not None and not violations:
        coarse = uow.predictions.label_of_mask(case.case_id, mask_id)
        of_case = uow.submissions.of_case(case.case_id) if coarse is None else []
        earlier = next((submission for submission in reversed(of_case) if submission.mask_volume_id == mask_id), None)
        if coarse is not None:
            base = Base(model_version_id=coarse.model_version_id)
        elif earlier is not None:
            base = Base(submission_id=earlier.submission_id)
        else:
            description = (
                "measures the correction against a mask that is neither a coarse label nor a label of the case"
            )
            violations.append(FieldViolation("receipt_id", description))
    refuse("the mask is not this case's", violations)
    return base


def round_for(uow: UnitOfWork, project_id: ProjectId) -> int:
    """The round for which a label counts that comes now; a new one where none is open."""
    number = counting_round(uow, project_id)
    if open_head(uow, project_id) is None:
        # Labels always have a round to count for: the newest has been closed to them.
        begin_round(uow, project_id, number)
        project = uow.projects.get(project_id)
        if project.state == ProjectState.COMPLETE:
            uow.projects.update(replace(project, state=ProjectState.ACTIVE))
    return number


def _submission(
    uow: UnitOfWork, lease: Lease, case: Case, label: Label, receipt: Receipt, base: Base, state: ReviewState
) -> Submission:
    return Submission(
        submission_id=SubmissionId(str(uuid4())),
        project_id=lease.project_id,
        case_id=case.case_id,
        round=lease.round,
        annotator_id=lease.annotator_id,
        lease_id=lease.lease_id,
        mask_volume_id=receipt.mask_volume_id,
        mask_digest=receipt.mask_digest,
        receipt_id=receipt.receipt_id,
        organ_states=label.organ_states,
        time_segments=label.time_segments,
        effort=receipt.effort,
        coarse_model_version_id=base.model_version_id,
        create_time=uow.now,
        revision=len(uow.submissions.of_case(case.case_id)) + 1,
        review_state=state,
        held_out=case.held_out,
        started_from_submission_id=base.submission_id,
    )


def _take(uow: UnitOfWork, lease: Lease, submission: Submission, fresh: Sequence[TimeSegment]) -> Submission:
    """Store a label that came in time. It counts, or waits for a reviewer; the lease's draft is removed."""
    before = [entry.segment for entry in uow.ledger.of_lease(lease.lease_id)]
    uow.submissions.add(submission)
    uow.leases.end(lease, LeaseState.SUBMITTED)
    uow.ledger.assign(lease.lease_id, submission)
    book_submission(uow, submission, fresh)
    draft = uow.drafts.of_lease(lease.lease_id)
    if draft is not None:
        uow.drafts.remove(draft.draft_id)
    if submission.review_state == ReviewState.PENDING:
        uow.cases.set_pending(submission.case_id, submission.submission_id)
        tell_of_label(uow, submission, EventKind.REVIEW_REQUESTED, "a label waits for a reviewer")
    else:
        uow.cases.set_submission(submission.case_id, submission.submission_id)
        uow.outbox.enqueue(submission.project_id, submission.case_id)
        seconds = fsum(s.active_seconds for s in (*before, *fresh))
        tell_of_label(uow, submission, EventKind.CASE_SUBMITTED, _words(submission), seconds)
    return submission


def _words(submission: Submission) -> str:
    if submission.supersedes_submission_id is not None:
        return "the label of a case was corrected"
    return "a held-out case was labelled" if submission.held_out else "a case was labelled"


def _keep(uow: UnitOfWork, submission: Submission, reason: str) -> Submission:
    uow.submissions.add(submission)
    tell_of_label(uow, submission, EventKind.DRAFT_KEPT, reason)
    return submission


def tell_of_label(
    uow: UnitOfWork, submission: Submission, kind: EventKind, message: str, seconds: float | None = None
) -> None:
    """Add what became of a label to the project's history."""
    uow.events.add(
        Event(
            project_id=submission.project_id,
            kind=kind,
            message=message,
            round=submission.round,
            seconds=seconds,
            details={"case_id": submission.case_id, "submission_id": submission.submission_id},
        )
    )
