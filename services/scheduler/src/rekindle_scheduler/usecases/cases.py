"""The seed set and the target set: add, register, look at, mark."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from uuid import uuid4

from rekindle.errors import AlreadyExists, FieldViolation, IllegalTransition, InvalidInput

from rekindle_scheduler.domain.cases import Case
from rekindle_scheduler.domain.enums import CaseMark, CaseState, ProjectState
from rekindle_scheduler.domain.events import Event, EventKind
from rekindle_scheduler.domain.held_out import held_out_at_registration
from rekindle_scheduler.domain.ids import CaseId, ProjectId, SeedCaseId, VolumeId
from rekindle_scheduler.domain.records import Project, SeedCase
from rekindle_scheduler.domain.volumes import Receipt, Volume
from rekindle_scheduler.state import CaseFilter, UnitOfWork
from rekindle_scheduler.usecases.organs import refuse, states_of_seed

_MAX_GROUP_KEY = 128


@dataclass(frozen=True, kw_only=True)
class Registration:
    """A target case to be registered."""

    volume_id: VolumeId
    group_key: str = ""


def add_seed_case(
    uow: UnitOfWork,
    project_id: ProjectId,
    *,
    image: Volume,
    mask_volume_id: VolumeId,
    receipt: Receipt,
    not_reviewed: Iterable[str],
) -> SeedCase:
    """One labelled public volume; the same image and mask again answer the seed case that is there."""
    project = uow.projects.lock(project_id)
    if project.state != ProjectState.DRAFT:
        raise IllegalTransition(
            "the project has been started: its seed set does not change any more", reason="PROJECT_STARTED"
        )
    _check_seed(image, mask_volume_id, receipt)
    existing = uow.seed_cases.of_image(project_id, image.volume_id)
    if existing is not None:
        if existing.mask_volume_id == mask_volume_id:
            return existing
        raise AlreadyExists(
            f"image {image.volume_id} is a seed case already, with another mask", reason="SEED_CASE_EXISTS"
        )
    assert image.modality is not None
    seed_case = SeedCase(
        seed_case_id=SeedCaseId(str(uuid4())),
        project_id=project_id,
        modality=image.modality,
        image_volume_id=image.volume_id,
        mask_volume_id=mask_volume_id,
        receipt_id=receipt.receipt_id,
        image_digest=image.digest,
        mask_digest=receipt.mask_digest,
        organ_states=states_of_seed(project.organs, not_reviewed, receipt.voxels),
    )
    uow.seed_cases.add(seed_case)
    return seed_case


def list_seed_cases(uow: UnitOfWork, project_id: ProjectId, *, after: int, limit: int) -> list[tuple[int, SeedCase]]:
    """Seed cases in the order in which they were added, each with its place in it."""
    uow.projects.get(project_id)
    return uow.seed_cases.page(project_id, after=after, limit=limit)


def unregistered(uow: UnitOfWork, project_id: ProjectId, volume_ids: Sequence[VolumeId]) -> list[VolumeId]:
    """Of these volumes the ones without a case: what inference must be asked about."""
    uow.projects.get(project_id)
    existing = uow.cases.of_volumes(project_id, volume_ids)
    return [volume_id for volume_id in dict.fromkeys(volume_ids) if volume_id not in existing]


def register_cases(
    uow: UnitOfWork,
    project_id: ProjectId,
    registrations: Sequence[Registration],
    volumes: Mapping[VolumeId, Volume],
) -> list[tuple[Case, bool]]:
    """A case for each, in order, and whether it is new; a volume registered before answers its case."""
    project = uow.projects.lock(project_id)
    existing = uow.cases.of_volumes(project_id, [registration.volume_id for registration in registrations])
    answers: list[tuple[Case, bool]] = []
    for registration in registrations:
        case = existing.get(registration.volume_id)
        if case is None:
            case = _register(uow, project, registration, volumes[registration.volume_id])
            existing[registration.volume_id] = case
            answers.append((case, True))
        else:
            answers.append((case, False))
    return answers


def get_case(uow: UnitOfWork, project_id: ProjectId, case_id: CaseId) -> Case:
    """The case as it is now."""
    return uow.cases.get(project_id, case_id)


def list_cases(
    uow: UnitOfWork,
    project_id: ProjectId,
    wanted: CaseFilter,
    *,
    ranked: bool,
    after: tuple[int, int],
    limit: int,
) -> list[tuple[tuple[int, int], Case]]:
    """Cases as registered, or by the policy's ordering; each with its place in that order."""
    uow.projects.get(project_id)
    return uow.cases.page(project_id, wanted, ranked=ranked, after=after, limit=limit)


def mark_case(uow: UnitOfWork, project_id: ProjectId, case_id: CaseId, mark: CaseMark) -> Case:
    """Set or clear a person's mark on an unlabelled case."""
    # Lock order: the project before the case. The history is numbered by the project.
    uow.projects.lock(project_id)
    case = uow.cases.lock(project_id, case_id)
    if case.state == CaseState.LABELLED:
        raise IllegalTransition("the case is labelled: a mark has no meaning any more", reason="CASE_LABELLED")
    if case.mark != mark:
        uow.cases.set_mark(case_id, mark)
        uow.events.add(
            Event(
                project_id=project_id,
                kind=EventKind.CASE_MARKED,
                message=f"a case was marked {mark.replace('_', ' ')}",
                round=case.round,
                details={"case_id": case_id, "mark": mark},
            )
        )
    return uow.cases.get(project_id, case_id)


def _check_seed(image: Volume, mask_volume_id: VolumeId, receipt: Receipt) -> None:
    violations: list[FieldViolation] = []
    if not image.is_image:
        violations.append(FieldViolation("image_volume_id", "is a mask: name the image"))
    if receipt.mask_volume_id != mask_volume_id:
        violations.append(FieldViolation("receipt_id", "belongs to another mask"))
    if receipt.image_volume_id != image.volume_id:
        violations.append(FieldViolation("mask_volume_id", "lies on another image"))
    refuse("the seed case does not fit together", violations)


def _register(uow: UnitOfWork, project: Project, registration: Registration, volume: Volume) -> Case:
    if not project.registration_open:
        raise IllegalTransition("the registration is closed: no case can be added", reason="REGISTRATION_CLOSED")
    if not volume.is_image:
        raise InvalidInput(
            f"volume {volume.volume_id} is a mask: cases are images",
            violations=[FieldViolation("volume_id", "must be an image")],
        )
    if volume.modality != project.target_modality:
        raise InvalidInput(
            f"volume {volume.volume_id} is of another modality than the project's {project.target_modality}",
            reason="MODALITY_MISMATCH",
            violations=[FieldViolation("volume_id", f"must be {project.target_modality}")],
        )
    if len(registration.group_key) > _MAX_GROUP_KEY:
        refuse(
            "the group key is too long",
            [FieldViolation("group_key", f"must have at most {_MAX_GROUP_KEY} characters")],
        )
    held_out = held_out_at_registration(project.policy, registration.group_key, volume.digest)
    return uow.cases.add(project.project_id, volume, registration.group_key, held_out=held_out)
