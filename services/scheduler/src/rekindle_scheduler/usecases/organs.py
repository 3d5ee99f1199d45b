"""Organs of a project and what is stated about them: complete, known, and in agreement with the mask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rekindle.errors import FieldViolation, InvalidInput
from rekindle.vocabulary import ORGAN_ID, Organ, OrganState, OrganStatus

_EMPTY = (OrganStatus.ABSENT, OrganStatus.OUT_OF_VIEW)
_PRESENT = (OrganStatus.EDITED, OrganStatus.ACCEPTED)


def check_organs(organs: Sequence[Organ]) -> None:
    """InvalidInput unless there are organs, each with an id and a label value of its own."""
    violations: list[FieldViolation] = [] if organs else [FieldViolation("organs", "must name at least one organ")]
    ids: set[str] = set()
    values: set[int] = set()
    for index, organ in enumerate(organs):
        path = f"organs[{index}]"
        if not ORGAN_ID.fullmatch(organ.id):
            description = "must be lower-case letters, digits and underscores, a letter first"
            violations.append(FieldViolation(f"{path}.id", description))
        if organ.id in ids:
            violations.append(FieldViolation(f"{path}.id", f"{organ.id!r} is there twice"))
        if not 1 <= organ.label_value <= 255:
            violations.append(FieldViolation(f"{path}.label_value", "must be 1 to 255"))
        if organ.label_value in values:
            violations.append(FieldViolation(f"{path}.label_value", f"{organ.label_value} is there twice"))
        ids.add(organ.id)
        values.add(organ.label_value)
    refuse("the organs cannot be used", violations)


def check_states(organs: Sequence[Organ], states: Sequence[OrganState], voxels: Mapping[str, int]) -> None:
    """InvalidInput unless there is one state for each organ and none contradicts the mask's voxels."""
    organ_ids = [organ.id for organ in organs]
    violations: list[FieldViolation] = []
    stated: set[str] = set()
    for index, state in enumerate(states):
        problem = _problem(state, organ_ids, stated, voxels.get(state.organ_id, 0))
        if problem:
            violations.append(FieldViolation(f"organ_states[{index}]", problem))
        stated.add(state.organ_id)
    missing = [organ_id for organ_id in organ_ids if organ_id not in stated]
    if missing:
        violations.append(FieldViolation("organ_states", f"must have a status for {', '.join(missing)} too"))
    refuse("the label's statuses cannot be used", violations)


def check_known_states(organs: Sequence[Organ], states: Sequence[OrganState]) -> None:
    """InvalidInput for a state of an organ that the project does not have, or a second one; some may be missing."""
    organ_ids = [organ.id for organ in organs]
    violations: list[FieldViolation] = []
    stated: set[str] = set()
    for index, state in enumerate(states):
        problem = _unknown(state.organ_id, organ_ids, stated)
        if problem:
            violations.append(FieldViolation(f"organ_states[{index}]", problem))
        stated.add(state.organ_id)
    refuse("the draft's statuses cannot be used", violations)


def states_of_seed(
    organs: Sequence[Organ], not_reviewed: Iterable[str], voxels: Mapping[str, int]
) -> tuple[OrganState, ...]:
    """States of a seed case: not reviewed where said so, else accepted, or out of view where nothing is found."""
    unlabelled = list(not_reviewed)
    organ_ids = {organ.id for organ in organs}
    unknown = [
        FieldViolation(f"not_reviewed_organ_ids[{index}]", f"the project has no organ {organ_id!r}")
        for index, organ_id in enumerate(unlabelled)
        if organ_id not in organ_ids
    ]
    refuse("the seed case names organs that the project does not have", unknown)
    return tuple(
        OrganState(organ_id=organ.id, status=_seed_status(organ.id in unlabelled, voxels.get(organ.id, 0)))
        for organ in organs
    )


def refuse(what: str, violations: Sequence[FieldViolation]) -> None:
    """InvalidInput where there is any violation."""
    if violations:
        first = violations[0]
        raise InvalidInput(f"{what}: {first.field} {first.description}", violations=violations)


def _problem(state: OrganState, organ_ids: Sequence[str], stated: set[str], voxels: int) -> str:
    organ_id, status = state.organ_id, state.status
    unknown = _unknown(organ_id, organ_ids, stated)
    if unknown:
        return unknown
    if status in _EMPTY and voxels:
        return f"says that {organ_id} is {status.replace('_', ' ')}, but the mask has {voxels} voxels of it"
    if status in _PRESENT and not voxels:
        return (
            f"says that {organ_id} is {status}, but the mask has none of it: "
            "state absent, out of view or not reviewed, or label it"
        )
    return ""


def _unknown(organ_id: str, organ_ids: Sequence[str], stated: set[str]) -> str:
    if organ_id not in organ_ids:
        return f"the project has no organ {organ_id!r}: it has {', '.join(organ_ids)}"
    return f"{organ_id!r} is there twice" if organ_id in stated else ""


def _seed_status(is_unlabelled: bool, voxels: int) -> OrganStatus:
    if is_unlabelled:
        return OrganStatus.NOT_REVIEWED
    return OrganStatus.ACCEPTED if voxels else OrganStatus.OUT_OF_VIEW
