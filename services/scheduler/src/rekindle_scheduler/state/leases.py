"""Leases in SQL."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from rekindle_scheduler.domain.enums import LeaseState
from rekindle_scheduler.domain.events import LeasesExpired
from rekindle_scheduler.domain.ids import AnnotatorId, CaseId, LeaseId, ProjectId, SessionId, SubmissionId
from rekindle_scheduler.domain.records import Lease
from rekindle_scheduler.state.rows import Repository
from rekindle_scheduler.state.tables import cases, leases


class Leases(Repository):
    """Leases. A lease that nobody ended counts as expired from its expire_time on. `get` raises NotFound."""

    def add(self, lease: Lease) -> None:
        """Also makes it the one that holds the case."""
        self._expire_others(lease.case_id)
        values = {
            "lease_id": lease.lease_id,
            "project_id": lease.project_id,
            "case_id": lease.case_id,
            "fencing_token": lease.fencing_token,
            "annotator_id": lease.annotator_id,
            "start_time": lease.start_time,
            "expire_time": lease.expire_time,
            "state": lease.state,
            "round": lease.round,
            "coarse_model_version_id": lease.coarse_model_version_id,
            "reason": "",
            "session_id": lease.session_id,
            "tool": lease.tool,
            "revises_submission_id": lease.revises_submission_id,
        }
        self._connection.execute(sa.insert(leases).values(values))
        holds = {
            "lease_id": lease.lease_id,
            "lease_expire_time": lease.expire_time,
            "fencing_token": lease.fencing_token,
        }
        self._connection.execute(sa.update(cases).where(cases.c.case_id == lease.case_id).values(holds))

    def get(self, project_id: ProjectId, lease_id: LeaseId) -> Lease:
        statement = sa.select(leases).where(leases.c.project_id == project_id, leases.c.lease_id == lease_id)
        return self._lease(self._one(statement, "lease", lease_id))

    def extend(self, lease: Lease, expire_time: datetime) -> None:
        self._update(lease, {"expire_time": expire_time})
        self._connection.execute(_held_by(lease).values(lease_expire_time=expire_time))

    def end(self, lease: Lease, state: LeaseState, *, reason: str = "") -> None:
        """The lease ends now, in this state; its case is free again, if it was this lease that held it."""
        self._update(lease, {"state": state, "end_time": self._now, "reason": reason})
        self._connection.execute(_held_by(lease).values(lease_id=None, lease_expire_time=None))

    def resume(self, lease: Lease, fencing_token: int, expire_time: datetime, tool: str) -> None:
        """The same lease, live, under a new token, in another tool."""
        live = {"state": LeaseState.LIVE, "fencing_token": fencing_token, "expire_time": expire_time, "tool": tool}
        self._update(lease, live)
        holds = {"lease_expire_time": expire_time, "fencing_token": fencing_token}
        self._connection.execute(_held_by(lease).values(holds))

    def redirect(self, case_id: CaseId, revises: SubmissionId, instead: SubmissionId | None) -> None:
        """A lease that is to correct the first label is to correct the second."""
        correcting = leases.c.case_id == case_id, leases.c.revises_submission_id == revises
        # None would make it a lease of an open case: which it is, but for what the annotator was shown.
        if instead is not None:
            statement = sa.update(leases).where(*correcting, leases.c.state == LeaseState.LIVE)
            self._connection.execute(statement.values(revises_submission_id=instead))

    def of_session(self, session_id: SessionId) -> list[Lease]:
        """All of them, ended ones too, in the order in which they were taken."""
        statement = sa.select(leases).join(cases, cases.c.case_id == leases.c.case_id)
        statement = statement.where(leases.c.session_id == session_id)
        # All of them were taken in one moment, in the round's order.
        rows = self._connection.execute(statement.order_by(cases.c.rank, leases.c.lease_id))
        return [self._lease(row) for row in rows]

    def live_of(self, project_id: ProjectId, annotator_id: AnnotatorId) -> list[Lease]:
        statement = sa.select(leases).where(
            leases.c.project_id == project_id,
            leases.c.annotator_id == annotator_id,
            leases.c.state == LeaseState.LIVE,
            leases.c.expire_time > self._now,
        )
        rows = self._connection.execute(statement.order_by(leases.c.start_time, leases.c.lease_id))
        return [self._lease(row) for row in rows]

    def _expire_others(self, case_id: CaseId) -> None:
        statement = sa.update(leases).where(leases.c.case_id == case_id, leases.c.state == LeaseState.LIVE)
        expired = self._connection.execute(
            statement.values(state=LeaseState.EXPIRED, end_time=leases.c.expire_time)
        ).rowcount
        if expired:
            self._occurrences.append(LeasesExpired(number=expired))

    def _update(self, lease: Lease, values: dict[str, Any]) -> None:
        statement = sa.update(leases).where(leases.c.lease_id == lease.lease_id)
        self._connection.execute(statement.values(values))

    def _lease(self, row: sa.Row[Any]) -> Lease:
        has_run_out = row.state == LeaseState.LIVE and row.expire_time <= self._now
        return Lease(
            lease_id=row.lease_id,
            project_id=row.project_id,
            case_id=row.case_id,
            fencing_token=row.fencing_token,
            annotator_id=row.annotator_id,
            start_time=row.start_time,
            expire_time=row.expire_time,
            state=LeaseState.EXPIRED if has_run_out else LeaseState(row.state),
            round=row.round,
            coarse_model_version_id=row.coarse_model_version_id,
            end_time=row.expire_time if has_run_out else row.end_time,
            session_id=row.session_id,
            tool=row.tool,
            revises_submission_id=row.revises_submission_id,
        )


def _held_by(lease: Lease) -> sa.Update:
    return sa.update(cases).where(cases.c.case_id == lease.case_id, cases.c.lease_id == lease.lease_id)
