"""Drafts: save, read, list and discard unfinished labels; and resume a lease in another tool."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from uuid import uuid4

from rekindle.errors import FieldViolation, InvalidInput, NotFound, PermissionDenied, quoted_id
from rekindle.vocabulary import TimeSegment
from rekindle_servicekit.principal import Principal

from rekindle_scheduler.domain.annotation import Draft
from rekindle_scheduler.domain.cases import Case
from rekindle_scheduler.domain.ids import CaseId, DraftId, LeaseId, ProjectId
from rekindle_scheduler.domain.leases import decide_submission, is_live, renewed_end, resumed_end
from rekindle_scheduler.domain.minutes import not_booked
from rekindle_scheduler.domain.records import Lease
from rekindle_scheduler.domain.text import MAX_TOOL, check_text
from rekindle_scheduler.domain.volumes import Receipt
from rekindle_scheduler.state import UnitOfWork
from rekindle_scheduler.usecases.leases import LeaseDetails, lease_details, own_lease
from rekindle_scheduler.usecases.ledger import book_lease, booked_for, check_time
from rekindle_scheduler.usecases.organs import check_known_states
from rekindle_scheduler.usecases.reviews import may_review
from rekindle_scheduler.usecases.submissions import Label, base_of


@dataclass(frozen=True, kw_only=True)
class SavedDraft:
    """A draft as it is kept, with its lease."""

    draft: Draft
    details: LeaseDetails


@dataclass(frozen=True, kw_only=True)
class ResumedLease:
    """A lease that another tool resumed, with the draft and the time to resume from."""

    details: LeaseDetails
    draft: Draft | None
    #: Time that is booked for the lease so far.
    time_segments: tuple[TimeSegment, ...]


def save_draft(
    uow: UnitOfWork,
    principal: Principal,
    project_id: ProjectId,
    label: Label,
    receipt: Receipt,
    *,
    note: str,
    extend: bool,
) -> SavedDraft:
    """Save an unfinished label and book its time. A draft of a lost lease is a late one: its time is not booked."""
    check_text("note", note)
    lease = own_lease(uow, principal, project_id, label.lease_id)
    # Lock order: the project before the case. No other time of the annotator is booked meanwhile.
    project = uow.projects.lock(project_id)
    case = uow.cases.lock(project_id, lease.case_id)
    # Read again: the lease may have been released before the lock was ours.
    lease = uow.leases.get(project_id, lease.lease_id)
    base_of(uow, case, receipt)
    check_known_states(project.organs, label.organ_states)
    verdict = decide_submission(case, lease, label.fencing_token)
    earlier = uow.drafts.of_lease(lease.lease_id) if verdict.accepted else None
    draft = _draft(uow, lease, label, receipt, note, earlier, late=not verdict.accepted)
    if verdict.accepted:
        draft = replace(draft, time_segments=_book(uow, lease, case, label.time_segments))
        if extend and is_live(lease, uow.now):
            uow.leases.extend(lease, renewed_end(lease, label.fencing_token, project.policy, None, uow.now))
    uow.drafts.save(draft)
    details = lease_details(uow, project_id, lease.lease_id)
    return SavedDraft(draft=draft, details=details)


def get_draft(
    uow: UnitOfWork, principal: Principal, project_id: ProjectId, *, case_id: CaseId | None, draft_id: DraftId | None
) -> Draft:
    """This very draft, or the caller's newest on the case. Reviewers may read anybody's by its id."""
    if (case_id is None) == (draft_id is None):
        problem = "name either a case or a draft"
        raise InvalidInput(problem, violations=[FieldViolation("case_id", problem)])
    if draft_id is not None:
        draft = uow.drafts.get(project_id, draft_id)
        if not may_review(principal):
            _check_own(uow, principal, draft)
        return draft
    assert case_id is not None
    uow.cases.get(project_id, case_id)
    annotator_id = uow.annotators.find(principal)
    newest = None if annotator_id is None else uow.drafts.newest(project_id, case_id, annotator_id)
    if newest is None:
        raise NotFound(f"you have no draft of case {quoted_id(case_id)}", reason="DRAFT_NOT_FOUND")
    return newest


def list_drafts(
    uow: UnitOfWork, principal: Principal, project_id: ProjectId, *, after: tuple[datetime, str], limit: int
) -> list[tuple[tuple[datetime, str], Draft]]:
    """The caller's, in the order in which they were begun, each with its place in it."""
    uow.projects.get(project_id)
    annotator_id = uow.annotators.find(principal)
    return [] if annotator_id is None else uow.drafts.page(project_id, annotator_id, after=after, limit=limit)


def discard_draft(uow: UnitOfWork, principal: Principal, project_id: ProjectId, draft_id: DraftId) -> None:
    """The draft is gone; its time stays booked."""
    draft = uow.drafts.get(project_id, draft_id)
    _check_own(uow, principal, draft)
    uow.drafts.remove(draft_id)


def resume_lease(
    uow: UnitOfWork, principal: Principal, project_id: ProjectId, lease_id: LeaseId, tool: str
) -> ResumedLease:
    """The same lease under a new token, so that the tool that held it before cannot write any more."""
    check_text("tool", tool, MAX_TOOL)
    case_id = own_lease(uow, principal, project_id, lease_id).case_id
    project = uow.projects.get(project_id)
    case = uow.cases.lock(project_id, case_id)
    # As it is now: another tool may have taken it up before the lock was ours.
    lease = uow.leases.get(project_id, lease_id)
    end = resumed_end(case, lease, project.policy, uow.now)
    uow.leases.resume(lease, case.fencing_token + 1, end, tool)
    return ResumedLease(
        details=lease_details(uow, project_id, lease_id),
        draft=uow.drafts.newest(project_id, case_id, lease.annotator_id),
        time_segments=booked_for(uow, lease),
    )


def _draft(
    uow: UnitOfWork, lease: Lease, label: Label, receipt: Receipt, note: str, earlier: Draft | None, *, late: bool
) -> Draft:
    return Draft(
        draft_id=DraftId(str(uuid4())) if earlier is None else earlier.draft_id,
        project_id=lease.project_id,
        case_id=lease.case_id,
        lease_id=lease.lease_id,
        annotator_id=lease.annotator_id,
        mask_volume_id=receipt.mask_volume_id,
        receipt_id=receipt.receipt_id,
        organ_states=label.organ_states,
        note=note,
        time_segments=label.time_segments,
        save_time=uow.now,
        revision=1 if earlier is None else earlier.revision + 1,
        late=late,
    )


def _book(uow: UnitOfWork, lease: Lease, case: Case, segments: Sequence[TimeSegment]) -> tuple[TimeSegment, ...]:
    """All time of the lease, with what is new in `segments` booked."""
    booked = booked_for(uow, lease)
    fresh = not_booked(segments, booked)
    # No lease came after this one, so the case is this annotator's until now, expired or not.
    check_time(uow, lease, fresh, until=uow.now)
    book_lease(uow, lease, case, fresh)
    return (*booked, *fresh)


def _check_own(uow: UnitOfWork, principal: Principal, draft: Draft) -> None:
    if draft.annotator_id != uow.annotators.find(principal):
        raise PermissionDenied("the draft is somebody else's", reason="NOT_YOUR_DRAFT")
