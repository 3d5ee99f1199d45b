"""Predictions to be made, in SQL: one row per case and model version."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from rekindle.vocabulary import TimeSegment
from sqlalchemy.dialects import postgresql, sqlite

from rekindle_scheduler.domain.cases import CoarseLabel
from rekindle_scheduler.domain.enums import PredictionState
from rekindle_scheduler.domain.ids import CaseId, ModelVersionId, ProjectId, VolumeId
from rekindle_scheduler.domain.records import PredictionTask
from rekindle_scheduler.state import case_states
from rekindle_scheduler.state.codec import decode, decode_all, encode
from rekindle_scheduler.state.rows import Repository
from rekindle_scheduler.state.tables import cases, predictions, submissions


class Predictions(Repository):
    """The queue of predictions, and what came of them: one row per case and model version."""

    def enqueue(self, tasks: Sequence[PredictionTask]) -> None:
        """For cases that have no task of the version, or one that was skipped; others keep theirs."""
        if not tasks:
            return
        # What was skipped while another version served is to be done after all: a row that says so is as good as none,
        # also for a case that is not among these. One by one they would take minutes of a million.
        for project_id, version in {(task.project_id, task.model_version_id) for task in tasks}:
            skipped = sa.delete(predictions).where(
                predictions.c.project_id == project_id,
                predictions.c.model_version_id == version,
                predictions.c.state == PredictionState.SKIPPED,
            )
            self._connection.execute(skipped)
        dialect = postgresql if self._connection.dialect.name == "postgresql" else sqlite
        # Another scheduler may queue them at the same moment.
        self._connection.execute(
            dialect.insert(predictions).on_conflict_do_nothing(), [_values(task) for task in tasks]
        )

    def claim(
        self, project_id: ProjectId, model_version_id: ModelVersionId, *, limit: int, until: datetime
    ) -> list[PredictionTask]:
        statement = (
            sa.select(predictions)
            .join(cases, cases.c.case_id == predictions.c.case_id)
            .where(
                predictions.c.project_id == project_id,
                predictions.c.model_version_id == model_version_id,
                predictions.c.state == PredictionState.PENDING,
                sa.or_(predictions.c.claimed_until.is_(None), predictions.c.claimed_until <= self._now),
                case_states.is_waiting(self._now),
            )
            .order_by(predictions.c.in_pool.desc(), predictions.c.rank)
            .limit(limit)
            .with_for_update(skip_locked=True, of=predictions)
        )
        claimed = [_task(row) for row in self._connection.execute(statement)]
        for task in claimed:
            values = {"claimed_until": until, "attempts": task.attempts + 1}
            self._connection.execute(_row_of(task).values(values))
        return claimed

    def extend(self, tasks: Iterable[PredictionTask], until: datetime) -> None:
        """Keep them claimed for longer."""
        for task in tasks:
            self._connection.execute(_row_of(task).values(claimed_until=until))

    def release(self, tasks: Iterable[PredictionTask], *, were_tried: bool) -> None:
        """Let others claim what was not finished; what was not tried is as if it had not been claimed."""
        for task in tasks:
            pending = predictions.c.state == PredictionState.PENDING
            values: dict[str, Any] = {"claimed_until": None} | ({} if were_tried else {"attempts": task.attempts})
            self._connection.execute(_row_of(task).where(pending).values(values))

    def finish(self, task: PredictionTask, label: CoarseLabel | None) -> None:
        values = {
            "state": task.state,
            "reason": task.reason,
            "claimed_until": None,
            "mask_volume_id": None if label is None else label.mask_volume_id,
            "coarse_label": None if label is None else encode(label),
        }
        self._connection.execute(_row_of(task).values(values))

    def skip_others(self, project_id: ProjectId, model_version_id: ModelVersionId) -> int:
        """Skip what is pending of other versions; how many that were."""
        statement = sa.update(predictions).where(
            predictions.c.project_id == project_id,
            predictions.c.model_version_id != model_version_id,
            predictions.c.state == PredictionState.PENDING,
        )
        skipped = statement.values(state=PredictionState.SKIPPED, claimed_until=None)
        return self._connection.execute(skipped).rowcount

    def retry_failed(self, project_id: ProjectId) -> int:
        """Make what failed pending again; how many that were."""
        statement = sa.update(predictions).where(
            predictions.c.project_id == project_id, predictions.c.state == PredictionState.FAILED
        )
        again = statement.values(state=PredictionState.PENDING, reason="", attempts=0, claimed_until=None)
        return self._connection.execute(again).rowcount

    def label_of_mask(self, case_id: CaseId, mask_volume_id: VolumeId) -> CoarseLabel | None:
        """The coarse label of the case, of whatever version, that this mask is."""
        statement = sa.select(predictions.c.coarse_label).where(
            predictions.c.case_id == case_id, predictions.c.mask_volume_id == mask_volume_id
        )
        label = self._connection.execute(statement.limit(1)).scalar_one_or_none()
        return None if label is None else decode(CoarseLabel, label)

    def corrected(self, project_id: ProjectId) -> list[tuple[CoarseLabel, tuple[TimeSegment, ...]]]:
        """Coarse labels that were corrected to a case's first label, where that counts, with the time that it took."""
        statement = (
            sa.select(predictions.c.coarse_label, submissions.c.time_segments)
            .join_from(submissions, cases, cases.c.submission_id == submissions.c.submission_id)
            .join(
                predictions,
                sa.and_(
                    predictions.c.case_id == submissions.c.case_id,
                    predictions.c.model_version_id == submissions.c.coarse_model_version_id,
                ),
            )
            .where(
                submissions.c.project_id == project_id,
                submissions.c.supersedes_submission_id.is_(None),
                predictions.c.state == PredictionState.DONE,
            )
        )
        rows = self._connection.execute(statement)
        return [(decode(CoarseLabel, row.coarse_label), decode_all(TimeSegment, row.time_segments)) for row in rows]

    def labels(self, project_id: ProjectId) -> dict[tuple[CaseId, ModelVersionId], CoarseLabel]:
        statement = sa.select(predictions).where(
            predictions.c.project_id == project_id, predictions.c.state == PredictionState.DONE
        )
        rows = self._connection.execute(statement)
        return {(row.case_id, row.model_version_id): decode(CoarseLabel, row.coarse_label) for row in rows}


def _values(task: PredictionTask) -> dict[str, Any]:
    return {
        "project_id": task.project_id,
        "case_id": task.case_id,
        "model_version_id": task.model_version_id,
        "rank": task.rank,
        "in_pool": task.in_pool,
        "state": task.state,
        "attempts": task.attempts,
        "reason": task.reason,
    }


def _row_of(task: PredictionTask) -> sa.Update:
    return sa.update(predictions).where(
        predictions.c.case_id == task.case_id, predictions.c.model_version_id == task.model_version_id
    )


def _task(row: sa.Row[Any]) -> PredictionTask:
    return PredictionTask(
        project_id=row.project_id,
        case_id=row.case_id,
        model_version_id=row.model_version_id,
        rank=row.rank,
        in_pool=row.in_pool,
        state=PredictionState(row.state),
        attempts=row.attempts,
        reason=row.reason,
    )
