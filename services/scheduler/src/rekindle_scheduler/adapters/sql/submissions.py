"""Submissions in SQL: rows are added and never changed."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa

from rekindle_scheduler.adapters.sql.codec import decode_all, encode
from rekindle_scheduler.adapters.sql.rows import Repository
from rekindle_scheduler.adapters.sql.tables import cases, submissions
from rekindle_scheduler.domain.ids import CaseId, ProjectId
from rekindle_scheduler.domain.records import OrganEffort, OrganState, Submission, TimeSegment
from rekindle_scheduler.domain.words import ReviewState


class SqlSubmissions(Repository):
    """Corrected labels."""

    def add(self, submission: Submission) -> None:
        values = {
            **encode(submission),
            "create_time": submission.create_time,
            "sequence": self._take_number(submission.project_id, "last_submission"),
        }
        self._connection.execute(sa.insert(submissions).values(values))

    def of_case(self, case_id: CaseId) -> list[Submission]:
        statement = sa.select(submissions).where(submissions.c.case_id == case_id)
        rows = self._connection.execute(statement.order_by(submissions.c.revision))
        return [_submission(row) for row in rows]

    def counting(self, project_id: ProjectId) -> list[Submission]:
        statement = (
            sa.select(submissions)
            .join(cases, cases.c.submission_id == submissions.c.submission_id)
            .where(submissions.c.project_id == project_id)
            .order_by(submissions.c.sequence)
        )
        return [_submission(row) for row in self._connection.execute(statement)]

    def page(
        self, project_id: ProjectId, *, case_id: CaseId | None, round: int, after: int, limit: int
    ) -> list[tuple[int, Submission]]:
        statement = sa.select(submissions).where(submissions.c.project_id == project_id, submissions.c.sequence > after)
        if case_id is not None:
            statement = statement.where(submissions.c.case_id == case_id)
        if round:
            statement = statement.where(submissions.c.round == round)
        rows = self._connection.execute(statement.order_by(submissions.c.sequence).limit(limit))
        return [(row.sequence, _submission(row)) for row in rows]


def _submission(row: sa.Row[Any]) -> Submission:
    return Submission(
        submission_id=row.submission_id,
        project_id=row.project_id,
        case_id=row.case_id,
        round=row.round,
        annotator_id=row.annotator_id,
        lease_id=row.lease_id,
        mask_volume_id=row.mask_volume_id,
        mask_digest=row.mask_digest,
        receipt_id=row.receipt_id,
        organ_states=decode_all(OrganState, row.organ_states),
        time_segments=decode_all(TimeSegment, row.time_segments),
        effort=decode_all(OrganEffort, row.effort),
        coarse_model_version_id=row.coarse_model_version_id,
        create_time=row.create_time,
        revision=row.revision,
        supersedes_submission_id=row.supersedes_submission_id,
        review_state=ReviewState(row.review_state),
        held_out=row.held_out,
    )
