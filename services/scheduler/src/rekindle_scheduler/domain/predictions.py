"""In what order open cases are predicted by a new version, and which of them the next round waits for."""

from __future__ import annotations

import math
from collections.abc import Iterable

from rekindle_scheduler.domain.heldout import in_labelling_order
from rekindle_scheduler.domain.ids import ModelVersionId
from rekindle_scheduler.domain.ordering import rank_cases
from rekindle_scheduler.domain.policy import Policy
from rekindle_scheduler.domain.records import Case, PredictionTask
from rekindle_scheduler.domain.words import CaseState, HeldOutSchedule


def plan_predictions(policy: Policy, version: ModelVersionId, cases: Iterable[Case]) -> tuple[PredictionTask, ...]:
    """A task for each case in state REGISTERED or READY, the candidate pool first.

    Ranked by the coarse labels that the cases have now; cases without any come as they were registered. The
    pool counts cases that are not held out; the held-out cases that the next round may need come with it.
    """
    waiting = [case for case in cases if case.state in (CaseState.REGISTERED, CaseState.READY)]
    others = rank_cases((case for case in waiting if not case.held_out), policy.ordering, policy.training.seed)
    held_out = in_labelling_order(policy, (case for case in waiting if case.held_out))
    size = policy.candidate_pool or len(others)
    companions = _held_out_in_pool(policy, min(size, len(others)), len(held_out))
    pool = [*others[:size], *held_out[:companions]]
    rest = [*others[size:], *held_out[companions:]]
    return tuple(
        PredictionTask(
            project_id=case.project_id,
            case_id=case.case_id,
            model_version_id=version,
            rank=rank,
            in_pool=rank < len(pool),
        )
        for rank, case in enumerate([*pool, *rest])
    )


def _held_out_in_pool(policy: Policy, pool: int, held_out: int) -> int:
    schedule, share = policy.held_out.schedule, policy.held_out.share_of_round
    if not pool or not policy.candidate_pool or schedule == HeldOutSchedule.FIRST:
        return held_out
    if schedule == HeldOutSchedule.LAST:
        return 0
    return max(1, math.floor(pool * share / (1 - share) + 1e-9))
