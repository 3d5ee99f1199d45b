"""Counts over cases and predictions: what the reconciler decides on and what a project shows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import sqlalchemy as sa

from rekindle_scheduler.domain.enums import CaseState, PredictionState, ProjectState, ReviewState
from rekindle_scheduler.domain.ids import ModelVersionId, ProjectId
from rekindle_scheduler.domain.reconcile import CaseTally, PredictionTally
from rekindle_scheduler.state import case_states
from rekindle_scheduler.state.rows import Repository
from rekindle_scheduler.state.tables import cases, predictions, projects, rounds, seed_cases, submissions

#: Number of projects whose newest round an overview names; each becomes a series of its own in Prometheus.
MAX_OVERVIEW_PROJECTS: Final = 200


@dataclass(frozen=True, kw_only=True)
class CaseCounts:
    """How many cases of a project are where."""

    seed: int = 0
    registered: int = 0
    predicted: int = 0
    leased: int = 0
    labelled: int = 0
    held_out: int = 0
    held_out_labelled: int = 0
    in_review: int = 0


@dataclass(frozen=True, kw_only=True)
class Overview:
    """All projects at a glance."""

    cases: Mapping[CaseState, int]
    #: Registration time of the oldest case that is READY; None where there is no such case.
    oldest_ready: datetime | None
    #: Number of live leases.
    leases: int
    #: Newest round of each running project, of at most `MAX_OVERVIEW_PROJECTS`.
    rounds: Mapping[ProjectId, int]


class Tallies(Repository):
    """Counts, each in one statement; the reconciler takes them with every look at a project."""

    def counts(self, project_id: ProjectId) -> CaseCounts:
        row = self._connection.execute(_COUNTS, {"project_id": project_id, "now": self._now}).one()
        seed = sa.select(sa.func.count()).where(seed_cases.c.project_id == project_id)
        return CaseCounts(seed=self._connection.execute(seed).scalar_one(), **row._mapping)  # pyright: ignore[reportPrivateUsage]

    def cases(self, project_id: ProjectId, round: int) -> CaseTally:
        """Cases by where they are, and labels of the round that works."""
        given = {"project_id": project_id, "round": round}
        row = self._connection.execute(_CASES, {**given, "now": self._now}).one()
        labels = self._connection.execute(_LABELS, given).one()
        return CaseTally(
            open=row.open,
            leased=row.leased,
            in_review=row.in_review,
            ready=row.ready,
            open_training=row.open_training,
            ready_training=row.ready_training,
            round_open=row.round_open if round else 0,
            round_labels=labels.all,
            round_training_labels=labels.training,
        )

    def has_open(self, project_id: ProjectId) -> bool:
        """Whether any case is open; does not count them."""
        open_case = sa.select(cases.c.case_id).where(cases.c.project_id == project_id, case_states.is_open(self._now))
        # The order is that of the index of unlabelled cases, whose first rows answer, however few there are.
        first = open_case.order_by(cases.c.round, cases.c.rank).limit(1)
        return self._connection.execute(first).first() is not None

    def open_in_round(self, project_id: ProjectId, round: int) -> int:
        """Selected in this round and still open; looks at no other case."""
        of_round = cases.c.project_id == project_id, cases.c.round == round
        statement = sa.select(sa.func.count()).select_from(cases).where(*of_round, case_states.is_open(self._now))
        return self._connection.execute(statement).scalar_one()

    def predictions(self, project_id: ProjectId, version: ModelVersionId | None) -> PredictionTally:
        """Tasks of the version that serves."""
        given = {"project_id": project_id, "version": version, "now": self._now}
        return PredictionTally(**self._connection.execute(_PREDICTIONS, given).one()._mapping)  # pyright: ignore[reportPrivateUsage]

    def overview(self) -> Overview:
        """Of all projects."""
        is_ready = case_states.is_in(CaseState.READY, self._now)
        states = {state: _count(case_states.is_in(state, self._now)).label(state) for state in CaseState}
        oldest = sa.func.min(sa.case((is_ready, cases.c.register_time)))
        row = self._connection.execute(
            sa.select(
                *states.values(),
                _count(case_states.is_leased(self._now)).label("held"),
                sa.type_coerce(oldest, cases.c.register_time.type).label("oldest"),
            )
        ).one()
        newest = (
            sa.select(rounds.c.project_id, sa.func.max(rounds.c.number))
            .join(projects, projects.c.project_id == rounds.c.project_id)
            .where(projects.c.state.in_([ProjectState.IGNITING, ProjectState.ACTIVE]))
            .group_by(rounds.c.project_id)
            .order_by(rounds.c.project_id)
            .limit(MAX_OVERVIEW_PROJECTS)
        )
        return Overview(
            cases={state: int(getattr(row, state)) for state in CaseState},
            oldest_ready=row.oldest,
            leases=int(row.held),
            rounds={row[0]: row[1] for row in self._connection.execute(newest)},
        )


def _count(condition: sa.ColumnElement[bool]) -> sa.ColumnElement[int]:
    return sa.func.coalesce(sa.func.sum(sa.case((condition, 1), else_=0)), 0)


# Built once: to build a statement takes longer than SQLite needs to answer it.
_PROJECT: Final = sa.bindparam("project_id")
_ROUND: Final = sa.bindparam("round")
_IS_OPEN: Final = case_states.is_open(case_states.NOW)
_IS_READY: Final = case_states.is_in(CaseState.READY, case_states.NOW)
_IN_REVIEW: Final = case_states.is_in(CaseState.IN_REVIEW, case_states.NOW)
_TRAINS: Final = sa.not_(cases.c.held_out)

_COUNTS: Final = sa.select(
    sa.func.count().label("registered"),
    _count(cases.c.coarse_model_version_id.is_not(None)).label("predicted"),
    _count(case_states.is_in(CaseState.LEASED, case_states.NOW)).label("leased"),
    _count(case_states.is_labelled()).label("labelled"),
    _count(cases.c.held_out).label("held_out"),
    _count(sa.and_(cases.c.held_out, case_states.is_labelled())).label("held_out_labelled"),
    _count(_IN_REVIEW).label("in_review"),
).where(cases.c.project_id == _PROJECT, cases.c.purged_at.is_(None))

_CASES: Final = sa.select(
    _count(_IS_OPEN).label("open"),
    _count(sa.and_(_IS_OPEN, case_states.is_leased(case_states.NOW))).label("leased"),
    _count(_IN_REVIEW).label("in_review"),
    _count(_IS_READY).label("ready"),
    _count(sa.and_(_IS_OPEN, _TRAINS)).label("open_training"),
    _count(sa.and_(_IS_READY, _TRAINS)).label("ready_training"),
    _count(sa.and_(_IS_OPEN, cases.c.round == _ROUND)).label("round_open"),
).where(cases.c.project_id == _PROJECT)

_LABELS: Final = (
    sa.select(sa.func.count().label("all"), _count(_TRAINS).label("training"))
    # A label that was superseded counts no more, though it was accepted once.
    .join_from(submissions, cases, cases.c.submission_id == submissions.c.submission_id)
    .where(
        submissions.c.project_id == _PROJECT,
        submissions.c.round == _ROUND,
        submissions.c.review_state == ReviewState.ACCEPTED,
    )
)

_IS_PENDING: Final = predictions.c.state == PredictionState.PENDING
_HAS_FAILED: Final = predictions.c.state == PredictionState.FAILED
_PREDICTIONS: Final = (
    sa.select(
        _count(predictions.c.case_id.is_(None)).label("missing"),
        _count(_IS_PENDING).label("pending"),
        _count(sa.and_(_IS_PENDING, predictions.c.in_pool)).label("pool_pending"),
        _count(sa.and_(_HAS_FAILED, cases.c.coarse_model_version_id.is_(None))).label("failed_unlabelled"),
    )
    .select_from(
        cases.outerjoin(
            predictions,
            sa.and_(
                predictions.c.case_id == cases.c.case_id,
                predictions.c.model_version_id == sa.bindparam("version"),
                predictions.c.state != PredictionState.SKIPPED,
            ),
        )
    )
    .where(cases.c.project_id == _PROJECT, case_states.is_waiting(case_states.NOW))
)
