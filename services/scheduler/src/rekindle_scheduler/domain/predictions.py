"""In what order open cases are predicted by a new version, and which of them the next round waits for."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import chain

from rekindle_scheduler.domain.candidates import Candidate, in_labelling_order, rank
from rekindle_scheduler.domain.enums import CaseState, HeldOutSchedule
from rekindle_scheduler.domain.ids import ModelVersionId
from rekindle_scheduler.domain.policy import Policy
from rekindle_scheduler.domain.records import PredictionTask


def plan_predictions(policy: Policy, version: ModelVersionId, cases: Sequence[Candidate]) -> Iterator[PredictionTask]:
    """A task for each case in state REGISTERED or READY, the candidate pool first.

    Ranked by the coarse labels that the cases have now; cases without any come as they were registered. The
    pool counts cases that are not held out; the held-out cases that the next round may need come with it.
    """
    waiting = [case for case in cases if case.state in (CaseState.REGISTERED, CaseState.READY)]
    others = rank(case for case in waiting if not case.held_out)
    held_out = in_labelling_order(case for case in waiting if case.held_out)
    size = policy.candidate_pool or len(others)
    companions = _held_out_in_pool(policy, min(size, len(others)), len(held_out))
    pool = min(size, len(others)) + companions
    in_order = chain(others[:size], held_out[:companions], others[size:], held_out[companions:])
    for place, case in enumerate(in_order):
        yield PredictionTask(
            project_id=case.project_id,
            case_id=case.case_id,
            model_version_id=version,
            rank=place,
            in_pool=place < pool,
        )


def _held_out_in_pool(policy: Policy, pool: int, held_out: int) -> int:
    schedule, share = policy.held_out.schedule, policy.held_out.share_of_round
    if not pool or not policy.candidate_pool or schedule == HeldOutSchedule.FIRST:
        return held_out
    if schedule == HeldOutSchedule.LAST:
        return 0
    return max(1, math.floor(pool * share / (1 - share) + 1e-9))
