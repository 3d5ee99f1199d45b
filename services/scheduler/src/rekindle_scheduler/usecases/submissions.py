"""Submissions: store a corrected label, or keep it as a draft when its lease is lost."""

from __future__ import annotations

from dataclasses import dataclass
from uuid import uuid4

from rekindle.errors import FieldViolation
from rekindle_servicekit.principal import Principal

from rekindle_scheduler.domain.ids import CaseId, LeaseId, ModelVersionId, ProjectId, SubmissionId
from rekindle_scheduler.domain.leases import decide_submission
from rekindle_scheduler.domain.reconcile import open_round
from rekindle_scheduler.domain.records import Case, Lease, OrganState, Round, Submission, TimeSegment
from rekindle_scheduler.domain.words import LeaseState, ReviewState, RoundState
from rekindle_scheduler.ports import Receipt, UnitOfWork
from rekindle_scheduler.usecases.leases import counting_round, own_lease
from rekindle_scheduler.usecases.ledger import book_submission, check_time
from rekindle_scheduler.usecases.organs import check_states, refuse


@dataclass(frozen=True, kw_only=True)
class Label:
    """What an annotator hands in under a lease."""

    lease_id: LeaseId
    fencing_token: int
    receipt: Receipt
    organ_states: tuple[OrganState, ...]
    time_segments: tuple[TimeSegment, ...]


def submit(uow: UnitOfWork, principal: Principal, project_id: ProjectId, label: Label) -> Submission:
    """The label as stored. In review state DRAFT where the lease is lost: it is kept and does not count."""
    lease = own_lease(uow, principal, project_id, label.lease_id)
    # The project before the case, as everybody else locks them.
    project = uow.projects.lock(project_id)
    case = uow.cases.lock(project_id, lease.case_id)
    version = _coarse_version(uow, case, label.receipt)
    check_states(project.organs, label.organ_states, label.receipt.voxels)
    verdict = decide_submission(case, lease, label.fencing_token)
    earlier = uow.submissions.of_case(case.case_id)
    submission = Submission(
        submission_id=SubmissionId(str(uuid4())),
        project_id=project_id,
        case_id=case.case_id,
        round=_round_for(uow, project_id) if verdict.accepted else lease.round,
        annotator_id=lease.annotator_id,
        lease_id=lease.lease_id,
        mask_volume_id=label.receipt.mask_volume_id,
        mask_digest=label.receipt.mask_digest,
        receipt_id=label.receipt.receipt_id,
        organ_states=label.organ_states,
        time_segments=label.time_segments,
        effort=label.receipt.effort,
        coarse_model_version_id=version,
        create_time=uow.now,
        revision=len(earlier) + 1,
        review_state=ReviewState.ACCEPTED if verdict.accepted else ReviewState.DRAFT,
        held_out=case.held_out,
    )
    if verdict.accepted:
        # Nobody has taken the case since: it was this annotator's until now, expired or not.
        check_time(uow, lease, label.time_segments, until=uow.now)
        _count(uow, lease, submission)
    else:
        _keep(uow, submission, verdict.reason)
    return submission


def list_submissions(
    uow: UnitOfWork,
    principal: Principal,
    project_id: ProjectId,
    *,
    case_id: CaseId | None,
    round: int,
    after: int,
    limit: int,
) -> list[tuple[int, Submission]]:
    """Submissions in the order in which they came, drafts too, each with its place in it."""
    del principal
    uow.projects.get(project_id)
    if case_id is not None:
        uow.cases.get(project_id, case_id)
    return uow.submissions.page(project_id, case_id=case_id, round=round, after=after, limit=limit)


def _coarse_version(uow: UnitOfWork, case: Case, receipt: Receipt) -> ModelVersionId | None:
    """The version that made the coarse label which the receipt measures against."""
    found: list[FieldViolation] = []
    if receipt.image_volume_id != case.volume_id:
        found.append(FieldViolation("receipt_id", "is of a mask on another volume than the case's"))
    coarse_id, coarse = receipt.coarse_mask_volume_id, None
    if coarse_id is not None and not found:
        coarse = uow.predictions.label_of_mask(case.case_id, coarse_id)
        if coarse is None:
            description = "measures the correction against a mask that is no coarse label of the case"
            found.append(FieldViolation("receipt_id", description))
    refuse("the mask is not this case's", found)
    return None if coarse is None else coarse.model_version_id


def _round_for(uow: UnitOfWork, project_id: ProjectId) -> int:
    number = counting_round(uow, project_id)
    if open_round(tuple(uow.rounds.all(project_id))) is None:
        # Labels always have a round to count for: the newest has been closed to them.
        uow.rounds.add(Round(project_id=project_id, number=number, state=RoundState.SELECTING, start_time=uow.now))
        uow.events.add(project_id, "round-selecting", f"round {number} takes labels", round=number)
    return number


def _count(uow: UnitOfWork, lease: Lease, submission: Submission) -> None:
    uow.submissions.add(submission)
    uow.cases.set_submission(submission.case_id, submission.submission_id)
    uow.leases.end(lease, LeaseState.SUBMITTED)
    book_submission(uow, submission)
    uow.events.add(
        submission.project_id,
        "case-submitted",
        "a held-out case was labelled" if submission.held_out else "a case was labelled",
        round=submission.round,
        details=_details(submission),
    )


def _keep(uow: UnitOfWork, submission: Submission, reason: str) -> None:
    uow.submissions.add(submission)
    uow.events.add(
        submission.project_id,
        "draft-kept",
        reason,
        round=submission.round,
        details=_details(submission),
    )


def _details(submission: Submission) -> dict[str, str]:
    return {"case_id": submission.case_id, "submission_id": submission.submission_id}
