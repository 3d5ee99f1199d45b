"""The cases of a round: sizing, ordering and held-out schedule put together."""

from __future__ import annotations

import math
from collections.abc import Sequence

from rekindle_scheduler.domain.candidates import Candidate, in_labelling_order, rank
from rekindle_scheduler.domain.cases import Case
from rekindle_scheduler.domain.enums import CaseState, HeldOutSchedule
from rekindle_scheduler.domain.policy import HeldOutPolicy, MinutesBudget, Policy, cases_in_round


def select_cases(
    policy: Policy,
    round_number: int,
    cases: Sequence[Candidate],
    *,
    others_open: int = 0,
    minutes_factor: float = 1.0,
) -> tuple[Candidate, ...]:
    """The cases of round `round_number` (from 1) in the order in which they are handed out.

    `cases` may hold any: only those in state READY are taken. `others_open` counts cases that are not held
    out and that a later round may still select (leased, or not predicted yet). `minutes_factor` is the
    calibration of predicted minutes, for the minutes budget. Empty only when no case is READY.
    """
    ready = [case for case in cases if case.state == CaseState.READY]
    ranked = rank(case for case in ready if not case.held_out)
    held_out = in_labelling_order(case for case in ready if case.held_out)
    if not ranked:
        return tuple(held_out)
    if isinstance(policy.sizing, MinutesBudget):
        return _fit_minutes(policy, policy.sizing, ranked, held_out, others_open, minutes_factor)
    size = cases_in_round(policy.sizing, round_number)
    assert size is not None
    chosen = ranked[:size]
    last = len(chosen) == len(ranked) and not others_open
    return _hand_out(policy, chosen, held_out[: _held_out_count(policy.held_out, len(chosen), last)])


def predicted_minutes(case: Case, minutes_factor: float = 1.0) -> float:
    """What the case is expected to cost; 0 where nothing is known, so that it is not kept from anybody."""
    return case.coarse_label.predicted_minutes * minutes_factor if case.coarse_label else 0.0


def _held_out_count(held_out: HeldOutPolicy, chosen: int, last: bool) -> int | None:
    """How many held-out cases join `chosen` others; None for all of them."""
    match held_out.schedule:
        case HeldOutSchedule.FIRST:
            return None
        case HeldOutSchedule.LAST:
            return 0
        case HeldOutSchedule.INTERLEAVED:
            share = held_out.share_of_round
            # h / (chosen + h) <= share; the tolerance keeps 0.2 of 5 from becoming 0.9999.
            fitting = math.floor(chosen * share / (1 - share) + 1e-9)
            return None if last else max(1, fitting)


def _fit_minutes(
    policy: Policy,
    budget: MinutesBudget,
    ranked: Sequence[Candidate],
    held_out: Sequence[Candidate],
    others_open: int,
    factor: float,
) -> tuple[Candidate, ...]:
    """At least one case, and one held-out case where it is their turn; otherwise no more than fits."""
    match policy.held_out.schedule:
        case HeldOutSchedule.FIRST:
            kept_out = list(held_out)
        case HeldOutSchedule.LAST:
            kept_out = []
        case HeldOutSchedule.INTERLEAVED:
            kept_out = _fitting(held_out, budget.minutes_per_round * policy.held_out.share_of_round, factor)
    spent = sum(factor * case.predicted_minutes for case in kept_out)
    chosen = _fitting(ranked, budget.minutes_per_round - spent, factor)
    last = len(chosen) == len(ranked) and not others_open
    if last and policy.held_out.schedule == HeldOutSchedule.INTERLEAVED:
        kept_out = list(held_out)
    return _hand_out(policy, chosen, kept_out)


def _fitting(cases: Sequence[Candidate], minutes: float, factor: float) -> list[Candidate]:
    """The longest beginning of `cases` that fits the minutes; at least one case while there is any."""
    chosen = list(cases[:1])
    spent = sum(factor * case.predicted_minutes for case in chosen)
    for case in cases[1:]:
        spent += factor * case.predicted_minutes
        if spent > minutes:
            break
        chosen.append(case)
    return chosen


def _hand_out(policy: Policy, chosen: Sequence[Candidate], held_out: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Held-out cases first, or spread evenly, so that a round that is cut short has its share of them."""
    if policy.held_out.schedule == HeldOutSchedule.FIRST:
        return (*held_out, *chosen)
    places = [((i + 0.5) / len(chosen), 0, case) for i, case in enumerate(chosen)]
    places += [((i + 0.5) / len(held_out), 1, case) for i, case in enumerate(held_out)]
    return tuple(case for _, _, case in sorted(places, key=lambda place: place[:2]))
