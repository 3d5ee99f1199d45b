"""The scheduler's ports for unit tests: inference as a dictionary, state in SQLite with a clock that stands still."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from rekindle.vocabulary import (
    Digest,
    Modality,
    Organ,
    OrganEffort,
    OrganState,
    OrganStatus,
    TimeKind,
    TimeSegment,
    TimeSource,
)
from rekindle_scheduler.domain.cases import CoarseLabel
from rekindle_scheduler.domain.enums import PredictionState, ProjectState, RoundState
from rekindle_scheduler.domain.ids import CaseId, ModelVersionId, ProjectId, ReceiptId, VolumeId
from rekindle_scheduler.domain.policy import HeldOutPolicy, Policy, RoundSizes
from rekindle_scheduler.domain.records import PredictionTask, Project, Round
from rekindle_scheduler.domain.volumes import Receipt, Volume
from rekindle_scheduler.state import State, UnitOfWork, open_state
from rekindle_scheduler.usecases import cases, projects
from rekindle_scheduler.usecases.submissions import Label
from rekindle_servicekit.database import make_engine
from rekindle_servicekit.principal import Principal

START = datetime(2026, 3, 2, 8, 0, tzinfo=UTC)
ALICE = Principal(issuer="test", subject="alice", display_name="Alice")
BOB = Principal(issuer="test", subject="bob", display_name="Bob")
ORGANS = (Organ(id="liver", label_value=1), Organ(id="spleen", label_value=2))
MODEL = ModelVersionId("model-1")


@cache
def _empty_database() -> bytes:
    """A database with the newest schema, made once: migrations are tested elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "empty.sqlite3"
        open_state(f"sqlite:///{file}").close()
        return file.read_bytes()


@dataclass
class Bench:
    """A store with one project whose round 1 is being annotated."""

    #: Where a SQLite database is made, unless there is one at `url`.
    folder: Path | None = None
    now: datetime = START
    url: str = ""
    store: State = field(init=False)
    project_id: ProjectId = field(init=False)

    def __post_init__(self) -> None:
        if self.folder is not None:
            database = self.folder / "bench.sqlite3"
            database.write_bytes(_empty_database())
            self.store = State(make_engine(f"sqlite:///{database}"), self._clock)
        else:
            new = Path(self.url.removeprefix("sqlite:///"))
            if self.url.startswith("sqlite") and not new.exists():
                new.write_bytes(_empty_database())
            self.store = State(make_engine(self.url), self._clock)

    def _clock(self, _: sa.Connection) -> datetime:
        return self.now

    def later(self, **duration: float) -> None:
        """Let time pass."""
        self.now += timedelta(**duration)

    def create(self, **policy: Any) -> ProjectId:
        """An empty project."""
        rules = {
            "sizing": RoundSizes(cases=(2,)),
            "held_out": HeldOutPolicy(number=0),
            "lease_duration": timedelta(hours=4),
            **policy,
        }
        with self.store.write() as uow:
            details = projects.create_project(
                uow,
                ALICE,
                display_name="Test",
                organs=ORGANS,
                target_modality=Modality.CT,
                policy=Policy(**rules),
            )
        self.project_id = details.project.project_id
        return self.project_id

    def register(self, *names: str) -> list[CaseId]:
        """Cases on volumes of these names."""
        volumes = {VolumeId(name): image(name) for name in names}
        wanted = [cases.Registration(volume_id=volume_id) for volume_id in volumes]
        with self.store.write() as uow:
            answers = cases.register_cases(uow, self.project_id, wanted, volumes)
        return [case.case_id for case, _ in answers]

    def annotating(self, *names: str, **policy: Any) -> list[CaseId]:
        """Cases with coarse labels, selected in round 1, which hands them out."""
        self.create(**policy)
        case_ids = self.register(*names)
        with self.store.write() as uow:
            self._predict(uow, case_ids)
            uow.cases.set_round(case_ids, 1)
            for number, state in ((0, RoundState.CLOSED), (1, RoundState.ANNOTATING)):
                uow.rounds.add(round_of(self.project_id, number, state))
            project = uow.projects.get(self.project_id)
            uow.projects.update(running(project))
        return case_ids

    def _predict(self, uow: UnitOfWork, case_ids: list[CaseId]) -> None:
        for rank, case_id in enumerate(case_ids):
            label = coarse_label(case_id)
            task = PredictionTask(
                project_id=self.project_id,
                case_id=case_id,
                model_version_id=MODEL,
                rank=rank,
                in_pool=True,
                state=PredictionState.DONE,
            )
            uow.predictions.enqueue([task])
            uow.predictions.finish(task, label)
            uow.cases.set_coarse_label(case_id, label)


def round_of(project_id: ProjectId, number: int, state: RoundState) -> Round:
    return Round(project_id=project_id, number=number, state=state, start_time=START)


def running(project: Project) -> Project:
    return replace(project, state=ProjectState.ACTIVE, active_model_version_id=MODEL)


def image(name: str, modality: Modality = Modality.CT) -> Volume:
    return Volume(volume_id=VolumeId(name), is_image=True, modality=modality, digest=Digest(f"digest of {name}"))


def coarse_label(case_id: CaseId) -> CoarseLabel:
    return CoarseLabel(
        mask_volume_id=VolumeId(f"coarse {case_id}"),
        mask_digest=Digest("c" * 64),
        model_version_id=MODEL,
        predicted_minutes=8.0,
    )


def receipt(volume: str, *, coarse: str | None = None, liver: int = 100, spleen: int = 50) -> Receipt:
    """Of a mask on a volume."""
    return Receipt(
        receipt_id=ReceiptId(f"receipt {volume}"),
        mask_volume_id=VolumeId(f"mask {volume}"),
        mask_digest=Digest("d" * 64),
        image_volume_id=VolumeId(volume),
        image_digest=Digest(f"digest of {volume}"),
        coarse_mask_volume_id=None if coarse is None else VolumeId(coarse),
        voxels={"liver": liver, "spleen": spleen},
        effort=(OrganEffort(organ_id="liver", voxels_changed=7, added_path_length_mm=3.0, dice=0.9),),
    )


def states(**statuses: str) -> tuple[OrganState, ...]:
    """``states(liver="edited")``."""
    return tuple(OrganState(organ_id=key, status=OrganStatus(value)) for key, value in statuses.items())


def measured(start: datetime, seconds: float) -> TimeSegment:
    return TimeSegment(kind=TimeKind.EDITING, source=TimeSource.MEASURED, start_time=start, active_seconds=seconds)


def label(details: Any, **changes: Any) -> tuple[Label, Receipt]:
    """A sound label for a leased case, with its receipt."""
    lease, case = details.lease, details.case
    fields = {
        "lease_id": lease.lease_id,
        "fencing_token": lease.fencing_token,
        "receipt": receipt(case.volume_id, coarse=case.coarse_label.mask_volume_id),
        "organ_states": states(liver="edited", spleen="accepted"),
        "time_segments": (),
        **changes,
    }
    given = fields.pop("receipt")
    return Label(**fields), given
