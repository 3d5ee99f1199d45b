"""Rounds and their snapshots in SQL."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import sqlalchemy as sa
from rekindle.errors import VersionConflict

from rekindle_scheduler.domain.enums import ReviewState, RoundState
from rekindle_scheduler.domain.ids import ProjectId
from rekindle_scheduler.domain.reconcile import RoundHead
from rekindle_scheduler.domain.records import Round, Snapshot
from rekindle_scheduler.state.codec import decode, encode
from rekindle_scheduler.state.rows import Repository, Transaction
from rekindle_scheduler.state.tables import rounds, snapshots, submissions


class Rounds(Repository):
    """Rounds. Each change is a compare-and-set on the version that this transaction read. `get` raises NotFound."""

    def __init__(self, transaction: Transaction) -> None:
        super().__init__(transaction)
        self._versions: dict[tuple[str, int], int] = {}

    def add(self, round: Round) -> None:
        values = {
            "project_id": round.project_id,
            "number": round.number,
            "state": round.state,
            "version": 1,
            "record": _record(round),
        }
        self._connection.execute(sa.insert(rounds).values(values))

    def get(self, project_id: ProjectId, number: int) -> Round:
        statement = self._select(project_id).where(rounds.c.number == number)
        return self._rounds(project_id, [self._one(statement, "round", number)])[0]

    def newest(self, project_id: ProjectId) -> Round | None:
        statement = self._select(project_id).order_by(rounds.c.number.desc()).limit(1)
        newest = self._rounds(project_id, list(self._connection.execute(statement)))
        return newest[0] if newest else None

    def head(self, project_id: ProjectId) -> RoundHead | None:
        """The newest one's number and state; however many rounds and labels there are, it costs one row."""
        statement = sa.select(rounds.c.number, rounds.c.state).where(rounds.c.project_id == project_id)
        row = self._connection.execute(statement.order_by(rounds.c.number.desc()).limit(1)).one_or_none()
        return None if row is None else RoundHead(number=row.number, state=RoundState(row.state))

    def all(self, project_id: ProjectId) -> list[Round]:
        return self.page(project_id, after=-1, limit=None)

    def page(self, project_id: ProjectId, *, after: int, limit: int | None) -> list[Round]:
        statement = self._select(project_id).where(rounds.c.number > after)
        rows = self._connection.execute(statement.order_by(rounds.c.number).limit(limit))
        return self._rounds(project_id, list(rows))

    def update(self, round: Round) -> None:
        """Compare-and-set. VersionConflict where another transaction changed it since this unit of work read it."""
        key = (round.project_id, round.number)
        statement = sa.update(rounds).where(
            rounds.c.project_id == round.project_id,
            rounds.c.number == round.number,
            rounds.c.version == self._versions[key],
        )
        changed = self._connection.execute(
            statement.values(state=round.state, version=rounds.c.version + 1, record=_record(round))
        )
        if changed.rowcount != 1:
            raise VersionConflict(f"round {round.number} of project {round.project_id} was changed meanwhile")
        self._versions[key] += 1

    def add_snapshot(self, project_id: ProjectId, round: int, snapshot: Snapshot) -> None:
        values = {
            "project_id": project_id,
            "round": round,
            "digest": snapshot.digest,
            "record": encode(snapshot),
        }
        self._connection.execute(sa.insert(snapshots).values(values))

    def snapshot(self, project_id: ProjectId, round: int) -> Snapshot | None:
        statement = sa.select(snapshots.c.record).where(
            snapshots.c.project_id == project_id, snapshots.c.round == round
        )
        record = self._connection.execute(statement).scalar_one_or_none()
        return None if record is None else decode(Snapshot, record)

    def _select(self, project_id: ProjectId) -> sa.Select[Any]:
        return sa.select(rounds).where(rounds.c.project_id == project_id)

    def _rounds(self, project_id: ProjectId, rows: list[sa.Row[Any]]) -> list[Round]:
        self._versions |= {(row.project_id, row.number): row.version for row in rows}
        labels, first = self._labels(project_id)
        stored = [decode(Round, row.record) for row in rows]
        return [
            replace(
                round,
                labelled_cases=labels.get(round.number, 0),
                labelled_total=sum(count for number, count in first.items() if number <= round.number),
            )
            for round in stored
        ]

    def _labels(self, project_id: ProjectId) -> tuple[dict[int, int], dict[int, int]]:
        """Cases with an accepted label by round, and of these the ones that had none before."""
        rows = list(self._connection.execute(_LABELS, {"project_id": project_id}))
        return {row[0]: row[1] for row in rows}, {row[0]: row[2] for row in rows}


def _record(round: Round) -> Any:
    return encode(replace(round, labelled_cases=0, labelled_total=0))


#: Counts of labelled cases by round, and of those that had no label before. Built once: each look at a project
#: takes them.
_LABELS: Final = (
    sa.select(
        submissions.c.round,
        sa.func.count(submissions.c.case_id.distinct()),
        sa.func.count(sa.case((submissions.c.supersedes_submission_id.is_(None), submissions.c.case_id)).distinct()),
    )
    .where(
        submissions.c.project_id == sa.bindparam("project_id"),
        submissions.c.review_state == ReviewState.ACCEPTED,
    )
    .group_by(submissions.c.round)
)
