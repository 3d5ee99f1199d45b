"""Purges: erase a patient's cases, and look at how far the purge is."""

from __future__ import annotations

from dataclasses import dataclass, replace
from uuid import uuid4

from rekindle.errors import FieldViolation, IllegalTransition, NotFound

from rekindle_scheduler.domain.cases import Case
from rekindle_scheduler.domain.events import Event, EventKind
from rekindle_scheduler.domain.ids import CaseId, ProjectId
from rekindle_scheduler.domain.purges import Purge, PurgeId, PurgeWork, begin_again, is_training, without
from rekindle_scheduler.state import UnitOfWork
from rekindle_scheduler.usecases.organs import refuse

_MAX_REASON = 500


@dataclass(frozen=True, kw_only=True)
class PurgeTarget:
    """A patient whose cases are erased, named by group or by one of the cases."""

    group_key: str = ""
    case_id: str = ""


def purge_group(uow: UnitOfWork, project_id: ProjectId, target: PurgeTarget, *, reason: str) -> Purge:
    """From now on nothing of the cases is handed out, selected, predicted or trained on; the rest follows.

    NotFound; IllegalTransition (SEED_CASE); InvalidInput.
    """
    _check(target, reason)
    uow.projects.lock(project_id)
    cases = _cases_of(uow, project_id, target)
    for case in cases:
        # A lease that is being given at this moment ends with the others.
        uow.cases.lock(project_id, case.case_id)
    volume_ids = {case.volume_id for case in cases}
    if any(seed.image_volume_id in volume_ids for seed in uow.seed_cases.all(project_id)):
        raise IllegalTransition(
            "an image of this group is a seed case too, and the seed set of a project does not change: "
            "erase it with the project",
            reason="SEED_CASE",
        )
    purge = Purge(
        purge_id=PurgeId(str(uuid4())),
        project_id=project_id,
        reason=reason.strip(),
        case_ids=tuple(case.case_id for case in cases),
        submissions=0,
        request_time=uow.now,
        work=PurgeWork(volume_ids=tuple(sorted(volume_ids))),
    )
    _restart_runs(uow, purge, cases)
    purge = replace(purge, submissions=uow.purges.tombstone(purge))
    uow.purges.add(purge)
    who = "1 case is" if len(cases) == 1 else f"{len(cases)} cases are"
    uow.events.add(
        Event(
            project_id=project_id,
            kind=EventKind.PURGE_STARTED,
            message=f"{who} erased",
            details={"purge_id": purge.purge_id},
        )
    )
    return purge


def get_purge(uow: UnitOfWork, project_id: ProjectId, purge_id: PurgeId) -> Purge:
    """NotFound."""
    return uow.purges.get(project_id, purge_id)


def list_purges(uow: UnitOfWork, project_id: ProjectId, *, before: int | None, limit: int) -> list[tuple[int, Purge]]:
    """Newest first, each with its place."""
    uow.projects.get(project_id)
    return uow.purges.page(project_id, before=before, limit=limit)


def _check(target: PurgeTarget, reason: str) -> None:
    violations: list[FieldViolation] = []
    if bool(target.group_key) == bool(target.case_id):
        violations.append(FieldViolation("group_key", "give the patient's group, or one of its cases as case_id"))
    if not reason.strip() or len(reason) > _MAX_REASON:
        violations.append(FieldViolation("reason", f"must have 1 to {_MAX_REASON} characters"))
    if violations:
        refuse("the purge cannot be begun", violations)


def _cases_of(uow: UnitOfWork, project_id: ProjectId, target: PurgeTarget) -> list[Case]:
    group_key = target.group_key
    if target.case_id:
        case = uow.cases.lock(project_id, CaseId(target.case_id))
        if not case.group_key:
            return [case]
        group_key = case.group_key
    cases = uow.cases.of_group(project_id, group_key)
    if not cases:
        raise NotFound(
            "no case of this project is in this group: it was erased before, or is spelt otherwise",
            reason="GROUP_NOT_FOUND",
        )
    return cases


def _restart_runs(uow: UnitOfWork, purge: Purge, cases: list[Case]) -> None:
    """Rounds that are about to learn from the cases learn from the others only."""
    images = {case.image_digest for case in cases}
    for round in uow.rounds.all(purge.project_id):
        snapshot = uow.rounds.snapshot(purge.project_id, round.number) if is_training(round) else None
        if snapshot is None:
            continue
        rest = without(snapshot, purge.case_ids, images)
        if rest != snapshot:
            uow.purges.replace_snapshot(purge.project_id, round.number, rest)
            uow.rounds.update(begin_again(round, rest))
