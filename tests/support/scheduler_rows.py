"""Rows of the scheduler's state, made by its own repositories."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

import sqlalchemy as sa
from rekindle.vocabulary import Digest, Modality, Organ, OrganQuality
from rekindle_scheduler.domain.cases import CoarseLabel
from rekindle_scheduler.domain.enums import RoundState
from rekindle_scheduler.domain.ids import CaseId, ModelVersionId, ProjectId, VolumeId
from rekindle_scheduler.domain.policy import MinutesBudget, Policy
from rekindle_scheduler.domain.records import PredictionTask, Project, Round
from rekindle_scheduler.domain.volumes import Volume
from rekindle_scheduler.state import State, open_state
from rekindle_scheduler.usecases import leases
from rekindle_servicekit.principal import Principal

PROJECT = ProjectId("6f1c0f2e-3a39-4bd2-9f3e-3b8f1f0d6a01")
START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
ALICE = Principal(issuer="test", subject="alice", display_name="Alice")
BOB = Principal(issuer="test", subject="bob", display_name="Bob")


@dataclass
class Clock:
    """The database's clock, held still."""

    now: datetime = field(default=START)

    def __call__(self, _: sa.Connection) -> datetime:
        return self.now


def migrated(url: str) -> None:
    """The schema of a new database."""
    open_state(url).close()


def add_project(store: State) -> None:
    """PROJECT."""
    with store.write() as uow:
        uow.projects.add(
            Project(
                project_id=PROJECT,
                display_name="Test",
                organs=(Organ(id="liver", label_value=1),),
                target_modality=Modality.CT,
                policy=Policy(sizing=MinutesBudget(minutes_per_round=90.0)),
                create_time=START,
            )
        )


def add_cases(store: State, count: int, *, predicted: bool = True) -> list[CaseId]:
    """Cases of round 1 in the order of their ranks."""
    with store.write() as uow:
        added = [uow.cases.add(PROJECT, volume(f"v{index}"), "", held_out=False).case_id for index in range(count)]
        uow.cases.set_round(added, 1)
        for case_id in added:
            if predicted:
                uow.cases.set_coarse_label(case_id, coarse_label("model-1", case_id))
        if uow.rounds.newest(PROJECT) is None:
            uow.rounds.add(a_round(1, RoundState.ANNOTATING))
    return added


def volume(name: str) -> Volume:
    return Volume(volume_id=VolumeId(name), is_image=True, modality=Modality.CT, digest=Digest(f"digest {name}"))


def coarse_label(version: str, name: str) -> CoarseLabel:
    return CoarseLabel(
        mask_volume_id=VolumeId(f"{version} of {name}"),
        mask_digest=Digest("0" * 64),
        model_version_id=ModelVersionId(version),
        quality=(OrganQuality(organ_id="liver", soft_dice_confidence=None, predicted_ml=0.5),),
        predicted_minutes=7.5,
    )


def a_round(number: int, state: RoundState) -> Round:
    return Round(project_id=PROJECT, number=number, state=state, start_time=START)


def task(case_id: CaseId, rank: int, *, in_pool: bool = False) -> PredictionTask:
    return PredictionTask(
        project_id=PROJECT, case_id=case_id, model_version_id=ModelVersionId("model-2"), rank=rank, in_pool=in_pool
    )


def lease_next(uow: object, principal: Principal = ALICE) -> leases.LeaseDetails:
    outcome = leases.lease_next_case(uow, principal, PROJECT, None)  # type: ignore[arg-type]
    assert isinstance(outcome, leases.LeaseDetails)
    return outcome
