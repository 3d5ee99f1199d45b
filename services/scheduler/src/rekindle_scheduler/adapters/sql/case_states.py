"""The state of a case, from its row: as a condition in SQL and as a value."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import sqlalchemy as sa

from rekindle_scheduler.adapters.sql.tables import cases
from rekindle_scheduler.domain.words import CaseMark, CaseState


def is_open(now: datetime) -> sa.ColumnElement[bool]:
    """Neither labelled nor put off; whoever holds a case that is put off may finish it."""
    not_put_off = cases.c.mark != CaseMark.PUT_OFF
    return sa.and_(cases.c.submission_id.is_(None), sa.or_(not_put_off, is_leased(now)))


def is_leased(now: datetime) -> sa.ColumnElement[bool]:
    """Under a live lease."""
    return sa.and_(cases.c.lease_id.is_not(None), cases.c.lease_expire_time > now)


def is_free(now: datetime) -> sa.ColumnElement[bool]:
    """Under none."""
    return sa.or_(cases.c.lease_id.is_(None), cases.c.lease_expire_time <= now)


def is_in(state: CaseState, now: datetime) -> sa.ColumnElement[bool]:
    """The condition under which `state_of` gives this state."""
    unlabelled = cases.c.submission_id.is_(None)
    if state == CaseState.LABELLED:
        return cases.c.submission_id.is_not(None)
    if state == CaseState.LEASED:
        return sa.and_(unlabelled, is_leased(now))
    if state == CaseState.PUT_OFF:
        return sa.and_(unlabelled, is_free(now), cases.c.mark == CaseMark.PUT_OFF)
    has_label = cases.c.coarse_model_version_id
    known = has_label.is_not(None) if state == CaseState.READY else has_label.is_(None)
    return sa.and_(is_open(now), is_free(now), known)


def state_of(row: sa.Row[Any], now: datetime) -> CaseState:
    """Labelled before leased, leased before put off: what it is matters more than what it is marked as."""
    if row.submission_id is not None:
        return CaseState.LABELLED
    if row.lease_id is not None and row.lease_expire_time > now:
        return CaseState.LEASED
    if row.mark == CaseMark.PUT_OFF:
        return CaseState.PUT_OFF
    return CaseState.REGISTERED if row.coarse_model_version_id is None else CaseState.READY
