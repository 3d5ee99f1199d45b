"""Leases: hand out cases, keep them, give them back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from uuid import uuid4

from rekindle.errors import IllegalTransition, LeaseLost, PermissionDenied
from rekindle.vocabulary import TimeSegment
from rekindle_servicekit.principal import Principal

from rekindle_scheduler.domain.cases import Case
from rekindle_scheduler.domain.enums import LeaseState, ProjectState, RoundState
from rekindle_scheduler.domain.events import Event, EventKind
from rekindle_scheduler.domain.ids import AnnotatorId, CaseId, LeaseId, ProjectId, SessionId
from rekindle_scheduler.domain.leases import check_leasable, check_revisable, is_live, lease_end, renewed_end
from rekindle_scheduler.domain.reconcile import RoundHead
from rekindle_scheduler.domain.records import Lease, Project
from rekindle_scheduler.domain.text import MAX_TOOL, check_text
from rekindle_scheduler.state import UnitOfWork
from rekindle_scheduler.usecases.ledger import book_release

_SOON = timedelta(seconds=1)
_LATER = timedelta(seconds=5)


@dataclass(frozen=True, kw_only=True)
class LeaseDetails:
    """A lease with its case."""

    lease: Lease
    case: Case


@dataclass(frozen=True, kw_only=True)
class LeaseTerms:
    """How a case is leased: length, tool, session."""

    #: Length of the lease; None takes the policy's.
    duration: timedelta | None = None
    tool: str = ""
    session_id: SessionId | None = None


class NoCaseReason(StrEnum):
    """Reason why no case can be leased now."""

    PREPARING = "preparing"
    ROUND_TAKEN = "round_taken"
    COMPLETE = "complete"
    NOT_RUNNING = "not_running"


@dataclass(frozen=True, kw_only=True)
class NoCase:
    """The answer that no case can be leased now, and why."""

    reason: NoCaseReason
    message: str
    #: Pause before it makes sense to ask again; None where it never does.
    retry_after: timedelta | None = None


def lease_next_case(
    uow: UnitOfWork, principal: Principal, project_id: ProjectId, duration: timedelta | None, tool: str = ""
) -> LeaseDetails | NoCase:
    """The first free case of the open round's selection."""
    project = uow.projects.get(project_id)
    # Before anything is looked for, so that a wrong duration is told at any time.
    wish = _checked(uow, project, LeaseTerms(duration=duration, tool=tool))
    current = open_head(uow, project_id)
    if current is not None and current.state == RoundState.ANNOTATING:
        case = uow.cases.next_in_round(project_id, current.number)
        if case is not None:
            return grant(uow, principal, project, case, current.number, wish)
    return no_case(uow, project, current.number if current is not None else None)


def lease_case(
    uow: UnitOfWork,
    principal: Principal,
    project_id: ProjectId,
    case_id: CaseId,
    duration: timedelta | None,
    round_number: int,
    *,
    revise: bool = False,
    tool: str = "",
) -> LeaseDetails:
    """This very case, also from outside the selection. `round_number` 0 takes whichever round is open.

    With `revise` a labelled case, of any round, to correct its label, which counts until the correction does.
    """
    project = uow.projects.get(project_id)
    wish = _checked(uow, project, LeaseTerms(duration=duration, tool=tool))
    number = counting_round(uow, project_id)
    case = uow.cases.lock(project_id, case_id)
    if round_number and round_number != number:
        raise IllegalTransition(f"round {round_number} is not open: round {number} is", reason="ROUND_NOT_OPEN")
    check_revisable(case) if revise else check_leasable(case)
    return grant(uow, principal, project, case, number, wish)


def renew_lease(
    uow: UnitOfWork,
    principal: Principal,
    project_id: ProjectId,
    lease_id: LeaseId,
    fencing_token: int,
    duration: timedelta | None,
) -> LeaseDetails:
    """The lease, expiring later; LeaseLost where it is gone."""
    lease = own_lease(uow, principal, project_id, lease_id)
    project = uow.projects.get(project_id)
    lease = _locked(uow, lease)
    uow.leases.extend(lease, renewed_end(lease, fencing_token, project.policy, duration, uow.now))
    return lease_details(uow, project_id, lease_id)


def release_lease(
    uow: UnitOfWork,
    principal: Principal,
    project_id: ProjectId,
    lease_id: LeaseId,
    fencing_token: int,
    *,
    reason: str,
    segments: Sequence[TimeSegment],
) -> LeaseDetails:
    """The case is free again; the time that it took is booked all the same."""
    lease = own_lease(uow, principal, project_id, lease_id)
    # Lock order: the project before the case. The history is numbered by the project.
    uow.projects.lock(project_id)
    lease = _locked(uow, lease)
    case = uow.cases.get(project_id, lease.case_id)
    if fencing_token != lease.fencing_token or not is_live(lease, uow.now):
        raise LeaseLost("the lease has ended or the fencing token is not its own: there is nothing to release")
    book_release(uow, lease, case, segments)
    uow.leases.end(lease, LeaseState.RELEASED, reason=reason)
    tell_released(uow, lease)
    return lease_details(uow, project_id, lease_id)


def my_leases(uow: UnitOfWork, principal: Principal, project_id: ProjectId) -> list[LeaseDetails]:
    """The caller's live leases, oldest first."""
    uow.projects.get(project_id)
    annotator_id = uow.annotators.find(principal)
    leases = [] if annotator_id is None else uow.leases.live_of(project_id, annotator_id)
    return [LeaseDetails(lease=lease, case=uow.cases.get(project_id, lease.case_id)) for lease in leases]


def own_lease(uow: UnitOfWork, principal: Principal, project_id: ProjectId, lease_id: LeaseId) -> Lease:
    """The lease, which must be the caller's."""
    lease = uow.leases.get(project_id, lease_id)
    if lease.annotator_id != uow.annotators.find(principal):
        raise PermissionDenied("the lease is somebody else's", reason="NOT_YOUR_LEASE")
    return lease


def tell_released(uow: UnitOfWork, lease: Lease) -> None:
    """Add the release to the project's history."""
    uow.events.add(
        Event(
            project_id=lease.project_id,
            kind=EventKind.CASE_RELEASED,
            message="a case was given back",
            round=lease.round,
            details={"case_id": lease.case_id},
        )
    )


def _locked(uow: UnitOfWork, lease: Lease) -> Lease:
    """The lease as it is once its case is locked: another tool may have taken it up before."""
    uow.cases.lock(lease.project_id, lease.case_id)
    return uow.leases.get(lease.project_id, lease.lease_id)


def counting_round(uow: UnitOfWork, project_id: ProjectId) -> int:
    """The round that a label which comes now counts for: the open one, or the one after the newest."""
    newest = uow.rounds.head(project_id)
    if newest is None:
        raise IllegalTransition("the project has not been started", reason="PROJECT_NOT_STARTED")
    return newest.number if newest.is_open else newest.number + 1


def open_head(uow: UnitOfWork, project_id: ProjectId) -> RoundHead | None:
    """The round that takes labels now; None where none does."""
    newest = uow.rounds.head(project_id)
    return newest if newest is not None and newest.is_open else None


def grant(
    uow: UnitOfWork, principal: Principal, project: Project, case: Case, round_number: int, wish: LeaseTerms
) -> LeaseDetails:
    """The lease of a case that has been found to be free; one of a labelled case is to correct its label."""
    annotator_id: AnnotatorId = uow.annotators.find_or_add(principal)
    label = case.coarse_label
    lease = Lease(
        lease_id=LeaseId(str(uuid4())),
        project_id=project.project_id,
        case_id=case.case_id,
        fencing_token=case.fencing_token + 1,
        annotator_id=annotator_id,
        start_time=uow.now,
        expire_time=lease_end(project.policy, wish.duration, uow.now),
        round=round_number,
        coarse_model_version_id=None if label is None else label.model_version_id,
        session_id=wish.session_id,
        tool=wish.tool,
        revises_submission_id=case.submission_id,
    )
    uow.leases.add(lease)
    return lease_details(uow, project.project_id, lease.lease_id)


def lease_details(uow: UnitOfWork, project_id: ProjectId, lease_id: LeaseId) -> LeaseDetails:
    """A lease with its case, as they are now."""
    lease = uow.leases.get(project_id, lease_id)
    return LeaseDetails(lease=lease, case=uow.cases.get(project_id, lease.case_id))


def no_case(uow: UnitOfWork, project: Project, round_number: int | None) -> NoCase:
    """The reason why no case can be leased now."""
    if project.state == ProjectState.DRAFT:
        return NoCase(reason=NoCaseReason.NOT_RUNNING, message="the project has not been started")
    # Clients that wait ask this often, so no case is counted that need not be.
    if not uow.tallies.has_open(project.project_id):
        return NoCase(reason=NoCaseReason.COMPLETE, message="every case is labelled or put off")
    if project.state == ProjectState.STALLED:
        message = f"the project waits for a person: {project.state_reason}"
        return NoCase(reason=NoCaseReason.NOT_RUNNING, message=message)
    taken = uow.tallies.open_in_round(project.project_id, round_number) if round_number else 0
    if taken:
        message = f"all {taken} open cases of round {round_number} are leased or wait for a reviewer"
        return NoCase(reason=NoCaseReason.ROUND_TAKEN, message=message, retry_after=_LATER)
    message = "the next coarse labels are being prepared"
    return NoCase(reason=NoCaseReason.PREPARING, message=message, retry_after=_SOON)


def _checked(uow: UnitOfWork, project: Project, wish: LeaseTerms) -> LeaseTerms:
    lease_end(project.policy, wish.duration, uow.now)
    check_text("tool", wish.tool, MAX_TOOL)
    return wish
