"""Submissions in SQL: what was sent is never changed, what became of it is."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from rekindle.vocabulary import OrganEffort, OrganState, TimeSegment

from rekindle_scheduler.domain.enums import ReviewState
from rekindle_scheduler.domain.ids import AnnotatorId, CaseId, ProjectId, SubmissionId
from rekindle_scheduler.domain.records import Submission
from rekindle_scheduler.state.codec import decode_all, encode
from rekindle_scheduler.state.rows import Repository
from rekindle_scheduler.state.tables import cases, submissions

_AT_ONCE: Final = 10_000


@dataclass(frozen=True, kw_only=True)
class SubmissionFilter:
    """Which submissions a list shows; the defaults show all."""

    case_id: CaseId | None = None
    round: int = 0
    #: Review states of the submissions; empty for all.
    review_states: Collection[ReviewState] = ()
    annotator_id: AnnotatorId | None = None


class Submissions(Repository):
    """Corrected labels; what was sent is never changed once stored. `get` raises NotFound."""

    def add(self, submission: Submission) -> None:
        values = {
            **encode(submission),
            "create_time": submission.create_time,
            "review_time": submission.review_time,
            "withdraw_time": submission.withdraw_time,
            "sequence": self._take_number(submission.project_id, "last_submission"),
        }
        self._connection.execute(sa.insert(submissions).values(values))

    def get(self, project_id: ProjectId, submission_id: SubmissionId) -> Submission:
        statement = sa.select(submissions).where(
            submissions.c.project_id == project_id, submissions.c.submission_id == submission_id
        )
        return _submission(self._one(statement, "submission", submission_id))

    def update(self, submission: Submission) -> None:
        """Store what became of it: review, withdrawal, the round that it counts for, what it supersedes."""
        values = {
            "round": submission.round,
            "held_out": submission.held_out,
            "supersedes_submission_id": submission.supersedes_submission_id,
            "time_segments": encode(submission.time_segments),
            "review_state": submission.review_state,
            "reviewed_by": submission.reviewed_by,
            "review_time": submission.review_time,
            "review_comment": submission.review_comment,
            "withdraw_time": submission.withdraw_time,
            "withdraw_reason": submission.withdraw_reason,
        }
        statement = sa.update(submissions).where(submissions.c.submission_id == submission.submission_id)
        self._connection.execute(statement.values(values))

    def freeze(self, project_id: ProjectId, round: int, left_out: Iterable[CaseId]) -> None:
        """Those that count now, but for these cases', are in the round's snapshot."""
        counting = sa.select(cases.c.submission_id).where(
            cases.c.project_id == project_id, cases.c.submission_id.is_not(None)
        )
        statement = sa.update(submissions).where(
            submissions.c.project_id == project_id,
            submissions.c.snapshot_round == 0,
            submissions.c.submission_id.in_(counting),
        )
        self._connection.execute(statement.values(snapshot_round=round))
        # Taken back afterwards, some at a time: PostgreSQL takes 65,535 parameters in one statement.
        others = list(left_out)
        for first in range(0, len(others), _AT_ONCE):
            of_some = submissions.c.case_id.in_(others[first : first + _AT_ONCE])
            just_now = submissions.c.snapshot_round == round
            self._connection.execute(sa.update(submissions).where(of_some, just_now).values(snapshot_round=0))

    def frozen_cases(self, project_id: ProjectId) -> frozenset[CaseId]:
        """The cases of which any submission is in a snapshot."""
        statement = sa.select(submissions.c.case_id).where(
            submissions.c.project_id == project_id, submissions.c.snapshot_round > 0
        )
        return frozenset(row.case_id for row in self._connection.execute(statement))

    def of_case(self, case_id: CaseId) -> list[Submission]:
        """By revision."""
        statement = sa.select(submissions).where(submissions.c.case_id == case_id)
        rows = self._connection.execute(statement.order_by(submissions.c.revision))
        return [_submission(row) for row in rows]

    def counting(self, project_id: ProjectId) -> list[Submission]:
        """The submissions that count, one per labelled case, in the order they came."""
        statement = (
            sa.select(submissions)
            .join(cases, cases.c.submission_id == submissions.c.submission_id)
            .where(submissions.c.project_id == project_id)
            .order_by(submissions.c.sequence)
        )
        return [_submission(row) for row in self._connection.execute(statement)]

    def page(
        self, project_id: ProjectId, wanted: SubmissionFilter, *, after: int, limit: int
    ) -> list[tuple[int, Submission]]:
        statement = sa.select(submissions).where(submissions.c.project_id == project_id, submissions.c.sequence > after)
        if wanted.case_id is not None:
            statement = statement.where(submissions.c.case_id == wanted.case_id)
        if wanted.round:
            statement = statement.where(submissions.c.round == wanted.round)
        if wanted.review_states:
            statement = statement.where(submissions.c.review_state.in_(sorted(set(wanted.review_states))))
        if wanted.annotator_id is not None:
            statement = statement.where(submissions.c.annotator_id == wanted.annotator_id)
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
        reviewed_by=row.reviewed_by,
        review_time=row.review_time,
        review_comment=row.review_comment,
        withdraw_time=row.withdraw_time,
        withdraw_reason=row.withdraw_reason,
        started_from_submission_id=row.started_from_submission_id,
        snapshot_round=row.snapshot_round,
    )
