"""Scheduling: next case and submission on SQLite beside one JSON file of states."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path

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
from rekindle_scheduler.domain.enums import PredictionState, ProjectState, RoundState  # fmt: skip
from rekindle_scheduler.domain.ids import CaseId, ModelVersionId, ProjectId, ReceiptId, VolumeId
from rekindle_scheduler.domain.policy import HeldOutPolicy, Policy, RoundSizes
from rekindle_scheduler.domain.records import PredictionTask, Round  # fmt: skip
from rekindle_scheduler.domain.volumes import Receipt, Volume
from rekindle_scheduler.state import State, UnitOfWork, open_state
from rekindle_scheduler.usecases.cases import Registration, register_cases
from rekindle_scheduler.usecases.leases import LeaseDetails, lease_next_case
from rekindle_scheduler.usecases.projects import create_project
from rekindle_scheduler.usecases.submissions import Label, submit
from rekindle_servicekit.principal import Principal

from bench.json_states import JsonStates
from bench.measure import Figure, Options, Row, alternate, percentile

MODEL = ModelVersionId("model-1")
#: Number of people who label at once.
PEOPLE = [Principal(issuer="bench", subject=f"annotator-{number}", display_name="") for number in range(20)]
ORGANS = (Organ(id="liver", label_value=1), Organ(id="spleen", label_value=2))


def measure(options: Options) -> list[Row]:
    turns = 20 if options.quick else 200
    return [row for count in (1_000, 20_000) for row in _compare(options.folder, count, turns)]


def _compare(folder: Path, count: int, turns: int) -> list[Row]:
    folder = folder / str(count)
    folder.mkdir()
    names = [f"case-{number:05}" for number in range(count)]
    store = open_state(f"sqlite:///{folder / 'scheduler.sqlite3'}")
    # One more turn than is counted.
    project_id = annotating(store, names, selected=turns + 1)
    states = JsonStates(folder / "states.json")
    states.register(names)
    ours_people, their_people = cycle(PEOPLE), cycle(PEOPLE)
    ours, theirs = alternate(
        turns,
        lambda: turn(store, next(ours_people), project_id),
        lambda: _json_turn(states, next(their_people)),
    )
    store.close()
    return [
        Row(
            what=f"next case + submission, {count:,} cases, p{percent}", unit="ms", more_is_better=False,
            rekindle=Figure.of([1e3 * percentile(ours, percent)]),
            instead="a JSON file under a lock", other=Figure.of([1e3 * percentile(theirs, percent)]),
        )
        for percent in (50, 99)
    ]  # fmt: skip


def _json_turn(states: JsonStates, who: Principal) -> None:
    states.submit(states.lease(who.subject), who.subject, "mask.nii.gz")


def turn(store: State, who: Principal, project_id: ProjectId) -> None:
    """Two transactions, as the service's two calls make them; the receipt is what inference would answer."""
    with store.write() as uow:
        leased = lease_next_case(uow, who, project_id, None)
    if not isinstance(leased, LeaseDetails):
        raise RuntimeError(leased.message)
    label = Label(
        lease_id=leased.lease.lease_id,
        fencing_token=leased.lease.fencing_token,
        organ_states=tuple(OrganState(organ_id=organ.id, status=OrganStatus.EDITED) for organ in ORGANS),
        time_segments=(
            TimeSegment(
                kind=TimeKind.EDITING, source=TimeSource.INFERRED,
                start_time=leased.lease.start_time, active_seconds=0.0,
            ),
        ),
    )  # fmt: skip
    with store.write() as uow:
        submit(uow, who, project_id, label, _receipt(leased.case.volume_id, leased.case.case_id))


def annotating(store: State, names: list[str], *, selected: int) -> ProjectId:
    """A project whose cases all have coarse labels, the first of them selected in round 1, which hands them out."""
    with store.write() as uow:
        policy = Policy(sizing=RoundSizes(cases=(selected,)), held_out=HeldOutPolicy(number=0))
        project_id = create_project(
            uow, PEOPLE[0], display_name="Bench", organs=ORGANS, target_modality=Modality.CT, policy=policy
        ).project.project_id
        case_ids = _registered(uow, project_id, names)
        _predicted(uow, project_id, case_ids)
        uow.cases.set_round(case_ids[:selected], 1)
        for number, state in ((0, RoundState.CLOSED), (1, RoundState.ANNOTATING)):
            uow.rounds.add(Round(project_id=project_id, number=number, state=state, start_time=datetime.now(UTC)))
        project = uow.projects.get(project_id)
        uow.projects.update(replace(project, state=ProjectState.ACTIVE, active_model_version_id=MODEL))
    return project_id


def _registered(uow: UnitOfWork, project_id: ProjectId, names: list[str]) -> list[CaseId]:
    case_ids: list[CaseId] = []
    for first in range(0, len(names), 500):
        ids = [VolumeId(name) for name in names[first : first + 500]]
        volumes = {
            each: Volume(volume_id=each, is_image=True, modality=Modality.CT, digest=Digest(f"digest of {each}"))
            for each in ids
        }
        wanted = [Registration(volume_id=each) for each in ids]
        case_ids += [case.case_id for case, _ in register_cases(uow, project_id, wanted, volumes)]
    return case_ids


def _predicted(uow: UnitOfWork, project_id: ProjectId, case_ids: list[CaseId]) -> None:
    for rank, case_id in enumerate(case_ids):
        label = CoarseLabel(
            mask_volume_id=VolumeId(f"coarse {case_id}"), mask_digest=Digest("c" * 64),
            model_version_id=MODEL, predicted_minutes=8.0,
        )  # fmt: skip
        task = PredictionTask(
            project_id=project_id, case_id=case_id, model_version_id=MODEL,
            rank=rank, in_pool=True, state=PredictionState.DONE,
        )  # fmt: skip
        uow.predictions.enqueue([task])
        uow.predictions.finish(task, label)
        uow.cases.set_coarse_label(case_id, label)


def _receipt(volume_id: VolumeId, case_id: CaseId) -> Receipt:
    return Receipt(
        receipt_id=ReceiptId(f"receipt {case_id}"),
        mask_volume_id=VolumeId(f"mask {case_id}"),
        mask_digest=Digest("d" * 64),
        image_volume_id=volume_id,
        image_digest=Digest(f"digest of {volume_id}"),
        coarse_mask_volume_id=VolumeId(f"coarse {case_id}"),
        voxels={"liver": 100, "spleen": 50},
        effort=(OrganEffort(organ_id="liver", voxels_changed=7, added_path_length_mm=3.0, dice=0.9),),
    )
