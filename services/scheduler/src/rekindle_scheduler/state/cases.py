"""The target set in SQL."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import sqlalchemy as sa
from rekindle.errors import NotFound

from rekindle_scheduler.domain.cases import Case, CoarseLabel
from rekindle_scheduler.domain.enums import CaseMark, CaseState, PredictionState
from rekindle_scheduler.domain.ids import CaseId, ModelVersionId, ProjectId, SubmissionId, VolumeId
from rekindle_scheduler.domain.volumes import Volume
from rekindle_scheduler.state import case_states
from rekindle_scheduler.state.codec import decode, encode
from rekindle_scheduler.state.rows import Repository
from rekindle_scheduler.state.tables import cases, predictions

_AT_ONCE: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class CaseFilter:
    """Which cases a list shows; the defaults show all."""

    #: States of the cases; empty for all.
    states: Collection[CaseState] = ()
    held_out: bool | None = None
    round: int = 0


class Cases(Repository):
    """The target set. States are as of the transaction's moment; `get` and `lock` raise NotFound."""

    def add(self, project_id: ProjectId, volume: Volume, group_key: str, *, held_out: bool) -> Case:
        sequence = self._take_number(project_id, "last_case")
        case_id = CaseId(str(uuid4()))
        values = {
            "case_id": case_id,
            "project_id": project_id,
            "sequence": sequence,
            "volume_id": volume.volume_id,
            "image_digest": volume.digest,
            "group_key": group_key,
            "held_out": held_out,
            "mark": CaseMark.NONE,
            "register_time": self._now,
            "round": 0,
            "rank": 0,
            "ordering_rank": sequence,
            "fencing_token": 0,
        }
        self._connection.execute(sa.insert(cases).values(values))
        return self.get(project_id, case_id)

    def of_volumes(self, project_id: ProjectId, volume_ids: Iterable[VolumeId]) -> dict[VolumeId, Case]:
        wanted = cases.c.volume_id.in_(list(volume_ids))
        rows = self._rows(self._select(project_id).where(wanted))
        return {case.volume_id: case for case in rows}

    def get(self, project_id: ProjectId, case_id: CaseId) -> Case:
        statement = self._select(project_id).where(cases.c.case_id == case_id)
        return self._case(self._one(statement, "case", case_id))

    def lock(self, project_id: ProjectId, case_id: CaseId) -> Case:
        """As `get`; no other transaction changes the case before this one ends. NotFound (PURGED) too."""
        statement = self._select(project_id).where(cases.c.case_id == case_id).with_for_update()
        case = self._case(self._one(statement, "case", case_id))
        if case.state == CaseState.PURGED:
            raise NotFound("the case was erased: nothing of it is left to work on", reason="PURGED")
        return case

    def all(self, project_id: ProjectId) -> list[Case]:
        """Without those that were erased."""
        kept = self._select(project_id).where(cases.c.purged_at.is_(None))
        return self._rows(kept.order_by(cases.c.sequence))

    def of_group(self, project_id: ProjectId, group_key: str) -> list[Case]:
        """The cases of one patient, without those that were erased."""
        in_it = sa.and_(cases.c.group_key == group_key, cases.c.purged_at.is_(None))
        return self._rows(self._select(project_id).where(in_it).order_by(cases.c.sequence))

    def page(
        self, project_id: ProjectId, wanted: CaseFilter, *, ranked: bool, after: tuple[int, int], limit: int
    ) -> list[tuple[tuple[int, int], Case]]:
        # Each is a stretch of an index.
        order = (cases.c.ordering_rank, cases.c.sequence) if ranked else (cases.c.sequence,)
        behind = sa.tuple_(*order) > sa.tuple_(*after) if ranked else cases.c.sequence > after[1]
        statement = self._select(project_id).where(behind)
        if wanted.states:
            in_states = [case_states.is_in(state, self._now) for state in sorted(set(wanted.states))]
            statement = statement.where(sa.or_(*in_states))
        if wanted.held_out is not None:
            statement = statement.where(cases.c.held_out == wanted.held_out)
        if wanted.round:
            statement = statement.where(cases.c.round == wanted.round)
        statement = statement.order_by(*order).limit(limit)
        rows = self._connection.execute(statement)
        return [((row.ordering_rank if ranked else 0, row.sequence), self._case(row)) for row in rows]

    def next_in_round(self, project_id: ProjectId, round: int) -> Case | None:
        """The first case of the round's selection that is free, locked."""
        statement = (
            self._select(project_id)
            .where(cases.c.round == round, case_states.is_in(CaseState.READY, self._now))
            .order_by(cases.c.rank)
            .limit(1)
            .with_for_update(skip_locked=True)
        )
        return next(iter(self._rows(statement)), None)

    def without_task(self, project_id: ProjectId, version: ModelVersionId) -> Iterator[Case]:
        """The open, free cases, without those in review, that this version is not asked to predict yet.

        Read as they are asked for, some at a time.
        """
        has_task = (
            sa.select(predictions.c.case_id)
            .where(
                predictions.c.case_id == cases.c.case_id,
                predictions.c.model_version_id == version,
                predictions.c.state != PredictionState.SKIPPED,
            )
            .exists()
        )
        waiting = case_states.is_waiting(self._now), sa.not_(has_task)
        return self._in_pages(self._select(project_id).where(*waiting))

    def unlabelled(self, project_id: ProjectId) -> Iterator[Case]:
        """Those without a label that counts, as registered, read as they are asked for."""
        # What was erased looks labelled.
        return self._in_pages(self._select(project_id).where(cases.c.submission_id.is_(None)))

    def labelled(self, project_id: ProjectId) -> list[Case]:
        return self._rows(self._select(project_id).where(case_states.is_labelled()).order_by(cases.c.sequence))

    def held_out(self, project_id: ProjectId) -> list[Case]:
        """Labelled or not."""
        kept = cases.c.held_out.is_(True), cases.c.purged_at.is_(None)
        return self._rows(self._select(project_id).where(*kept).order_by(cases.c.sequence))

    def set_held_out(self, case_ids: Iterable[CaseId]) -> None:
        self._update(case_ids, {"held_out": True})

    def set_mark(self, case_id: CaseId, mark: CaseMark) -> None:
        self._update([case_id], {"mark": mark})

    def set_round(self, case_ids: Sequence[CaseId], round: int) -> None:
        self._number(case_ids, {"round": round}, "rank")

    def set_ordering(self, case_ids: Sequence[CaseId], *, first: int) -> None:
        """Keep the places in the policy's ordering, from `first` on, for ranked lists."""
        self._number(case_ids, {}, "ordering_rank", first)

    def set_coarse_label(self, case_id: CaseId, label: CoarseLabel) -> None:
        version = label.model_version_id
        self._update([case_id], {"coarse_label": encode(label), "coarse_model_version_id": version})

    def show_labels_of(self, project_id: ProjectId, version: ModelVersionId) -> None:
        """Where this version has predicted a case that is not labelled, its coarse label is the one to show."""
        done = (
            predictions.c.model_version_id == version,
            predictions.c.state == PredictionState.DONE,
        )
        label = sa.select(predictions.c.coarse_label).where(predictions.c.case_id == cases.c.case_id, *done)
        predicted = sa.select(predictions.c.case_id).where(predictions.c.project_id == project_id, *done)
        shown = sa.update(cases).where(
            cases.c.project_id == project_id, cases.c.submission_id.is_(None), cases.c.case_id.in_(predicted)
        )
        values = {"coarse_label": label.scalar_subquery(), "coarse_model_version_id": version}
        self._connection.execute(shown.values(values))

    def set_submission(self, case_id: CaseId, submission_id: SubmissionId | None) -> None:
        self._update([case_id], {"submission_id": submission_id})

    def set_pending(self, case_id: CaseId, submission_id: SubmissionId | None) -> None:
        """The submission that waits for a reviewer."""
        self._update([case_id], {"pending_submission_id": submission_id})

    def _select(self, project_id: ProjectId) -> sa.Select[Any]:
        return sa.select(cases).where(cases.c.project_id == project_id)

    def _rows(self, statement: sa.Select[Any]) -> list[Case]:
        return [self._case(row) for row in self._connection.execute(statement)]

    def _in_pages(self, statement: sa.Select[Any]) -> Iterator[Case]:
        """The rows in the order of registration, a page of them in memory at a time."""
        after = 0
        while True:
            page = statement.where(cases.c.sequence > after).order_by(cases.c.sequence).limit(_AT_ONCE)
            rows = self._connection.execute(page).all()
            yield from map(self._case, rows)
            if len(rows) < _AT_ONCE:
                return
            after = rows[-1].sequence

    def _update(self, case_ids: Iterable[CaseId], values: dict[str, Any]) -> None:
        # PostgreSQL takes 65,535 parameters in one statement.
        wanted = list(case_ids)
        for first in range(0, len(wanted), _AT_ONCE):
            of_some = cases.c.case_id.in_(wanted[first : first + _AT_ONCE])
            self._connection.execute(sa.update(cases).where(of_some).values(values))

    def _number(self, case_ids: Sequence[CaseId], values: dict[str, Any], place: str, first: int = 0) -> None:
        if not case_ids:
            return
        # A row that would stay as it is costs nothing then.
        differs = [cases.c[place] != sa.bindparam("place"), *(cases.c[name] != value for name, value in values.items())]
        statement = sa.update(cases).where(cases.c.case_id == sa.bindparam("id_of_case"), sa.or_(*differs))
        statement = statement.values({**values, place: sa.bindparam("place")})
        rows = [{"id_of_case": case_id, "place": index} for index, case_id in enumerate(case_ids, first)]
        self._connection.execute(statement, rows)

    def _case(self, row: sa.Row[Any]) -> Case:
        label = row.coarse_label
        return Case(
            case_id=row.case_id,
            project_id=row.project_id,
            volume_id=row.volume_id,
            image_digest=row.image_digest,
            group_key=row.group_key,
            sequence=row.sequence,
            state=case_states.state_of(row, self._now),
            mark=CaseMark(row.mark),
            held_out=row.held_out,
            round=row.round,
            rank=row.rank,
            coarse_label=None if label is None else decode(CoarseLabel, label),
            submission_id=None if row.purged_at is not None else row.submission_id,
            pending_submission_id=row.pending_submission_id,
            fencing_token=row.fencing_token,
            is_held=case_states.is_held(row, self._now),
            register_time=row.register_time,
        )
