"""Sessions: lease as many cases ahead as fit some minutes, and release what is left."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import uuid4

from rekindle.errors import PermissionDenied
from rekindle_servicekit.principal import Principal

from rekindle_scheduler.domain.annotation import (
    MAX_SESSION_CASES,
    Session,
    check_session,
    session_lease_duration,
)
from rekindle_scheduler.domain.enums import LeaseState, RoundState
from rekindle_scheduler.domain.ids import LeaseId, ProjectId, SessionId
from rekindle_scheduler.domain.leases import is_live, lease_end
from rekindle_scheduler.domain.selection import predicted_minutes
from rekindle_scheduler.domain.text import MAX_TOOL, check_text
from rekindle_scheduler.state import UnitOfWork
from rekindle_scheduler.usecases.leases import (
    LeaseDetails,
    LeaseTerms,
    NoCase,
    grant,
    no_case,
    open_head,
    tell_released,
)
from rekindle_scheduler.usecases.ledger import minutes_factor


@dataclass(frozen=True, kw_only=True)
class SessionTerms:
    """What a session is asked to hold."""

    minutes: float
    detached: bool = False
    #: Largest number of cases; 0 for as many as fit.
    max_cases: int = 0
    #: Length of each lease; None takes the policy's.
    duration: timedelta | None = None
    tool: str = ""


@dataclass(frozen=True, kw_only=True)
class SessionDetails:
    """A session with its leases, in the order of work."""

    session: Session
    leases: tuple[LeaseDetails, ...]


def start_session(
    uow: UnitOfWork, principal: Principal, project_id: ProjectId, wish: SessionTerms
) -> SessionDetails | NoCase:
    """The first free cases of the round that fit the minutes; one at least, however long it takes."""
    check_session(wish.minutes, wish.max_cases)
    check_text("tool", wish.tool, MAX_TOOL)
    project = uow.projects.get(project_id)
    length = session_lease_duration(project.policy, wish.minutes, wish.duration, detached=wish.detached)
    expire_time = lease_end(project.policy, length, uow.now)
    current = open_head(uow, project_id)
    if current is None or current.state != RoundState.ANNOTATING:
        return no_case(uow, project, None if current is None else current.number)
    session_id = SessionId(str(uuid4()))
    lease_wish = LeaseTerms(duration=length, tool=wish.tool, session_id=session_id)
    factor, spent, taken = minutes_factor(uow, project_id), 0.0, 0
    while taken < (wish.max_cases or MAX_SESSION_CASES):
        case = uow.cases.next_in_round(project_id, current.number)
        if case is None:
            break
        cost = predicted_minutes(case, factor)
        if taken and spent + cost > wish.minutes:
            break
        grant(uow, principal, project, case, current.number, lease_wish)
        spent, taken = spent + cost, taken + 1
    if not taken:
        return no_case(uow, project, current.number)
    session = Session(
        session_id=session_id,
        project_id=project_id,
        annotator_id=uow.annotators.find_or_add(principal),
        minutes=wish.minutes,
        predicted_minutes=spent,
        detached=wish.detached,
        create_time=uow.now,
        expire_time=expire_time,
    )
    uow.sessions.add(session)
    return _details(uow, session)


def get_session(uow: UnitOfWork, principal: Principal, project_id: ProjectId, session_id: SessionId) -> SessionDetails:
    """The caller's session as it is now."""
    return _details(uow, _own(uow, principal, project_id, session_id))


def my_sessions(
    uow: UnitOfWork,
    principal: Principal,
    project_id: ProjectId,
    *,
    include_ended: bool,
    after: tuple[datetime, str],
    limit: int,
) -> list[tuple[tuple[datetime, str], SessionDetails]]:
    """The caller's sessions, oldest first, each with its place."""
    uow.projects.get(project_id)
    annotator_id = uow.annotators.find(principal)
    if annotator_id is None:
        return []
    rows = uow.sessions.page(project_id, annotator_id, include_ended=include_ended, after=after, limit=limit)
    return [(place, _details(uow, session)) for place, session in rows]


def end_session(
    uow: UnitOfWork,
    principal: Principal,
    project_id: ProjectId,
    session_id: SessionId,
    held: Mapping[LeaseId, int],
) -> SessionDetails:
    """Release the leases that are left. With `held`, lease ids and tokens, a lease that another tool resumed stays."""
    session = _own(uow, principal, project_id, session_id)
    uow.projects.lock(project_id)
    for before in uow.leases.of_session(session_id):
        if not is_live(before, uow.now):  # submitted, released, expired, or its case erased
            continue
        uow.cases.lock(project_id, before.case_id)
        lease = uow.leases.get(project_id, before.lease_id)
        wanted = not held or held.get(lease.lease_id) == lease.fencing_token
        if wanted and is_live(lease, uow.now):
            uow.leases.end(lease, LeaseState.RELEASED, reason="the session ended")
            tell_released(uow, lease)
    if session.end_time is None:
        uow.sessions.end(session)
    return _details(uow, uow.sessions.get(project_id, session_id))


def _own(uow: UnitOfWork, principal: Principal, project_id: ProjectId, session_id: SessionId) -> Session:
    session = uow.sessions.get(project_id, session_id)
    if session.annotator_id != uow.annotators.find(principal):
        raise PermissionDenied("the session is somebody else's", reason="NOT_YOUR_SESSION")
    return session


def _details(uow: UnitOfWork, session: Session) -> SessionDetails:
    leases = uow.leases.of_session(session.session_id)
    return SessionDetails(
        session=session,
        leases=tuple(
            LeaseDetails(lease=lease, case=uow.cases.get(lease.project_id, lease.case_id)) for lease in leases
        ),
    )
