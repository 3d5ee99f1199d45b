"""The state of a case, from its row: as a condition in SQL and as a value."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import sqlalchemy as sa
from rekindle_servicekit.database import UtcDateTime

from rekindle_scheduler.domain.enums import CaseMark, CaseState
from rekindle_scheduler.domain.leases import case_state
from rekindle_scheduler.state.tables import cases

Moment = datetime | sa.BindParameter[datetime]

#: The transaction's moment, in statements that are built once.
NOW: Final[sa.BindParameter[datetime]] = sa.bindparam("now", type_=UtcDateTime())


def is_open(now: Moment) -> sa.ColumnElement[bool]:
    """Neither labelled nor put off; what is held or in review may be finished also where it is put off."""
    not_put_off = cases.c.mark != CaseMark.PUT_OFF
    pending = cases.c.pending_submission_id.is_not(None)
    return sa.and_(cases.c.submission_id.is_(None), sa.or_(not_put_off, pending, is_leased(now)))


def is_labelled() -> sa.ColumnElement[bool]:
    """With a label that counts. An erased case has a submission id too, so that no query takes it for open."""
    return sa.and_(cases.c.submission_id.is_not(None), cases.c.purged_at.is_(None))


def is_waiting(now: Moment) -> sa.ColumnElement[bool]:
    """Open, and neither held nor in review."""
    return sa.and_(is_open(now), is_free(now), cases.c.pending_submission_id.is_(None))


def is_leased(now: Moment) -> sa.ColumnElement[bool]:
    """Under a live lease."""
    return sa.and_(cases.c.lease_id.is_not(None), cases.c.lease_expire_time > now)


def is_free(now: Moment) -> sa.ColumnElement[bool]:
    """Under none."""
    return sa.or_(cases.c.lease_id.is_(None), cases.c.lease_expire_time <= now)


def is_in(state: CaseState, now: Moment) -> sa.ColumnElement[bool]:
    """The condition under which `state_of` gives this state."""
    unlabelled = cases.c.submission_id.is_(None)
    if state == CaseState.PURGED:
        return cases.c.purged_at.is_not(None)
    if state == CaseState.LABELLED:
        return is_labelled()
    if state == CaseState.IN_REVIEW:
        return sa.and_(unlabelled, cases.c.pending_submission_id.is_not(None))
    unlabelled = sa.and_(unlabelled, cases.c.pending_submission_id.is_(None))
    if state == CaseState.LEASED:
        return sa.and_(unlabelled, is_leased(now))
    if state == CaseState.PUT_OFF:
        return sa.and_(unlabelled, is_free(now), cases.c.mark == CaseMark.PUT_OFF)
    version = cases.c.coarse_model_version_id
    label_state = version.is_not(None) if state == CaseState.READY else version.is_(None)
    return sa.and_(is_waiting(now), label_state)


def state_of(row: sa.Row[Any], now: datetime) -> CaseState:
    """As the domain says; an erased case looks labelled and is not."""
    if row.purged_at is not None:
        return CaseState.PURGED
    return case_state(
        labelled=row.submission_id is not None,
        in_review=row.pending_submission_id is not None,
        leased=is_held(row, now),
        predicted=row.coarse_model_version_id is not None,
        mark=CaseMark(row.mark),
    )


def is_held(row: sa.Row[Any], now: datetime) -> bool:
    """As `is_leased`, of a row."""
    return row.lease_id is not None and row.lease_expire_time > now
