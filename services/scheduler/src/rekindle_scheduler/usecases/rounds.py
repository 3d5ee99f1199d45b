"""Rounds: look at them, cut one short, follow what happens."""

from __future__ import annotations

from dataclasses import dataclass, replace

from rekindle.errors import IllegalTransition

from rekindle_scheduler.domain.enums import RoundState
from rekindle_scheduler.domain.events import Event, EventKind, RoundEvent
from rekindle_scheduler.domain.ids import ProjectId
from rekindle_scheduler.domain.reconcile import working_round
from rekindle_scheduler.domain.records import Round
from rekindle_scheduler.domain.text import counted
from rekindle_scheduler.state import UnitOfWork


@dataclass(frozen=True, kw_only=True)
class RoundDetails:
    """A round with the minutes that were spent in it."""

    round: Round
    minutes: float


def get_round(uow: UnitOfWork, project_id: ProjectId, number: int) -> RoundDetails:
    """The round as it is now."""
    uow.projects.get(project_id)
    return with_minutes(uow, project_id, [uow.rounds.get(project_id, number)])[0]


def list_rounds(uow: UnitOfWork, project_id: ProjectId, *, after: int, limit: int) -> list[RoundDetails]:
    """Rounds by number."""
    uow.projects.get(project_id)
    return with_minutes(uow, project_id, uow.rounds.page(project_id, after=after, limit=limit))


def with_minutes(uow: UnitOfWork, project_id: ProjectId, rounds: list[Round]) -> list[RoundDetails]:
    """Minutes of all of a round's cases, the held-out ones too."""
    minutes = uow.ledger.minutes_of(project_id, [round.number for round in rounds])
    return [RoundDetails(round=round, minutes=minutes.get(round.number, 0.0)) for round in rounds]


def begin_round(uow: UnitOfWork, project_id: ProjectId, number: int) -> None:
    """Add the round; labels count for it from now on."""
    uow.rounds.add(Round(project_id=project_id, number=number, state=RoundState.SELECTING, start_time=uow.now))
    message = f"round {number} takes labels"
    uow.events.add(Event(project_id=project_id, kind=EventKind.ROUND_SELECTING, message=message, round=number))


def train_now(uow: UnitOfWork, project_id: ProjectId) -> RoundDetails:
    """Close the open round with what it has. IllegalTransition without a new label."""
    uow.projects.lock(project_id)
    working = working_round(tuple(uow.rounds.all(project_id)))
    if working is None or working.state != RoundState.ANNOTATING:
        raise IllegalTransition("no round is being annotated now", reason="NO_OPEN_ROUND")
    if not working.labelled_cases:
        raise IllegalTransition(
            f"round {working.number} has no new label yet: label at least one case", reason="NO_NEW_LABELS"
        )
    if not working.train_requested:
        uow.rounds.update(replace(working, train_requested=True))
        message = f"round {working.number} is closed with {counted(working.labelled_cases, 'label')}"
        uow.events.add(Event(project_id=project_id, kind=EventKind.TRAIN_NOW, message=message, round=working.number))
    return get_round(uow, project_id, working.number)


def events_after(uow: UnitOfWork, project_id: ProjectId, cursor: int, *, limit: int) -> list[RoundEvent]:
    """The project's history behind a cursor."""
    uow.projects.get(project_id)
    return uow.events.after(project_id, cursor, limit=limit)
