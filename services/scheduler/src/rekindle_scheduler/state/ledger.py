"""The ledger of minutes in SQL."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from rekindle.vocabulary import TimeKind, TimeSegment, TimeSource

from rekindle_scheduler.domain.events import TimeBooked
from rekindle_scheduler.domain.ids import AnnotatorId, LeaseId, ProjectId
from rekindle_scheduler.domain.records import LedgerEntry, Submission
from rekindle_scheduler.state.rows import Repository
from rekindle_scheduler.state.tables import ledger


class Ledger(Repository):
    """Time segments; the primary key is what they were sent with and their index there."""

    def add(self, entries: Sequence[LedgerEntry]) -> None:
        """Behind what was booked under the same submission or lease; all entries are of one."""
        if entries:
            first = self._next_segment(_source(entries[0]))
            rows = [_values(entry, first + index) for index, entry in enumerate(entries)]
            self._connection.execute(sa.insert(ledger), rows)
            self._occurrences += [
                TimeBooked(source=entry.segment.source, active_seconds=entry.segment.active_seconds)
                for entry in entries
            ]

    def of_lease(self, lease_id: LeaseId) -> list[LedgerEntry]:
        """What was booked for the lease itself: with drafts, or when it was given up."""
        statement = sa.select(ledger).where(ledger.c.lease_id == lease_id).order_by(ledger.c.segment)
        return [_entry(row) for row in self._connection.execute(statement)]

    def assign(self, lease_id: LeaseId, submission: Submission) -> None:
        """What was booked for the lease and belongs to no other label is this label's time."""
        values = {
            "submission_id": submission.submission_id,
            "round": submission.round,
            "held_out": submission.held_out,
            "coarse_model_version_id": submission.coarse_model_version_id,
        }
        unassigned = ledger.c.lease_id == lease_id, ledger.c.submission_id.is_(None)
        self._connection.execute(sa.update(ledger).where(*unassigned).values(values))

    def of_annotator(self, project_id: ProjectId, annotator_id: AnnotatorId, *, since: datetime) -> list[LedgerEntry]:
        statement = sa.select(ledger).where(
            ledger.c.project_id == project_id,
            ledger.c.annotator_id == annotator_id,
            ledger.c.start_time >= since,
        )
        return [_entry(row) for row in self._connection.execute(statement.order_by(ledger.c.start_time))]

    def minutes_of(self, project_id: ProjectId, rounds: Iterable[int]) -> dict[int, float]:
        """Minutes by round, of all of its cases; rounds without any are left out."""
        booked = sa.func.sum(ledger.c.active_seconds)
        statement = sa.select(ledger.c.round, booked).where(
            ledger.c.project_id == project_id, ledger.c.round.in_(list(rounds))
        )
        rows = self._connection.execute(statement.group_by(ledger.c.round))
        return {row[0]: float(row[1]) / 60.0 for row in rows}

    def all(self, project_id: ProjectId) -> list[LedgerEntry]:
        return [entry for _, entry in self.page(project_id, after=("", -1), limit=None)]

    def page(
        self, project_id: ProjectId, *, after: tuple[str, int], limit: int | None
    ) -> list[tuple[tuple[str, int], LedgerEntry]]:
        key = sa.tuple_(ledger.c.source_id, ledger.c.segment)
        statement = (
            sa.select(ledger)
            .where(ledger.c.project_id == project_id, key > sa.tuple_(*after))
            .order_by(ledger.c.source_id, ledger.c.segment)
            .limit(limit)
        )
        return [((row.source_id, row.segment), _entry(row)) for row in self._connection.execute(statement)]

    def _next_segment(self, source_id: str | None) -> int:
        newest = sa.select(sa.func.max(ledger.c.segment)).where(ledger.c.source_id == source_id)
        last = self._connection.execute(newest).scalar_one()
        return 0 if last is None else int(last) + 1


def _source(entry: LedgerEntry) -> str | None:
    return entry.submission_id or entry.lease_id


def _values(entry: LedgerEntry, index: int) -> dict[str, Any]:
    segment = entry.segment
    return {
        "source_id": _source(entry),
        "segment": index,
        "project_id": entry.project_id,
        "submission_id": entry.submission_id,
        "lease_id": entry.lease_id,
        "case_id": entry.case_id,
        "annotator_id": entry.annotator_id,
        "round": entry.round,
        "held_out": entry.held_out,
        "coarse_model_version_id": entry.coarse_model_version_id,
        "kind": segment.kind,
        "source": segment.source,
        "start_time": segment.start_time,
        "active_seconds": segment.active_seconds,
        "tool": segment.tool,
    }


def _entry(row: sa.Row[Any]) -> LedgerEntry:
    return LedgerEntry(
        project_id=row.project_id,
        case_id=row.case_id,
        annotator_id=row.annotator_id,
        round=row.round,
        held_out=row.held_out,
        coarse_model_version_id=row.coarse_model_version_id,
        submission_id=row.submission_id,
        lease_id=row.lease_id,
        segment=TimeSegment(
            kind=TimeKind(row.kind),
            source=TimeSource(row.source),
            start_time=row.start_time,
            active_seconds=row.active_seconds,
            tool=row.tool,
        ),
    )
