"""Candidates: what ranking and selecting keep of a case, as a project may have a million of them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final

from rekindle_scheduler.domain.cases import Case
from rekindle_scheduler.domain.enums import CaseMark, CaseState
from rekindle_scheduler.domain.held_out import held_out_draw
from rekindle_scheduler.domain.ids import CaseId, ProjectId
from rekindle_scheduler.domain.orderings import ORDERINGS
from rekindle_scheduler.domain.policy import Policy

#: Order of the marks, which outweigh every ordering.
_MARKS: Final = {CaseMark.EASY: 0, CaseMark.NONE: 1, CaseMark.PUT_OFF: 1, CaseMark.HARD: 2}


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A case that may be selected or predicted, without what its order does not depend on."""

    project_id: ProjectId
    case_id: CaseId
    #: Place in the order of registration, from 1.
    sequence: int
    state: CaseState
    held_out: bool
    #: Keys by its mark and by the policy's ordering; lower comes first.
    mark: int
    key: float
    #: Minutes by its coarse label; 0 where nothing is known, so that the case fits every budget.
    predicted_minutes: float
    #: Key of a held-out case, (draw, image), whatever its easiness; (0, "") for others.
    draw: tuple[float, str] = (0.0, "")


def candidates(policy: Policy, cases: Iterable[Case]) -> Iterator[Candidate]:
    """One for each case, as they come; the cases themselves are not kept."""
    key = ORDERINGS[policy.ordering]
    for case in cases:
        draw = held_out_draw(policy.training.seed, case.group_key, case.image_digest) if case.held_out else 0.0
        yield Candidate(
            project_id=case.project_id,
            case_id=case.case_id,
            sequence=case.sequence,
            state=case.state,
            held_out=case.held_out,
            mark=_MARKS[case.mark],
            key=key(case, policy.training.seed),
            predicted_minutes=case.coarse_label.predicted_minutes if case.coarse_label else 0.0,
            draw=(draw, case.image_digest if case.held_out else ""),
        )


def rank(cases: Iterable[Candidate]) -> list[Candidate]:
    """Cases marked easy first, marked hard last, within that by the ordering, ties as registered."""
    return sorted(cases, key=lambda case: (case.mark, case.key, case.sequence))


def in_labelling_order(cases: Iterable[Candidate]) -> list[Candidate]:
    """Held-out cases as they are handed out: by draw, so that no estimate of easiness picks the test set."""
    return sorted(cases, key=lambda case: (case.draw, case.sequence))
