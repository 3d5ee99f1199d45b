"""The queue: which waiting run starts next, and what the others are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rekindle.vocabulary import RunState

from rekindle_trainer.domain.retry import CLAUSE
from rekindle_trainer.domain.runs import WAITING, Run


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with the runs that wait."""

    #: To be started now, oldest first.
    launch: tuple[Run, ...]
    #: Run and its reason for waiting, where that has changed.
    waiting: tuple[tuple[Run, str], ...]


def plan_queue(runs: Sequence[Run], max_concurrent_runs: int, held: Mapping[str, str] | None = None) -> Plan:
    """First come, first served, `max_concurrent_runs` at a time; `runs` are all that have not ended.

    `held` says of projects, by id, why their runs may not start now; those let all others go before.
    """
    reasons = held or {}
    running = sum(run.state is RunState.RUNNING for run in runs)
    known = sorted((run for run in runs if run.state in WAITING), key=lambda run: (run.created_at, run.run_id))
    waiting = [run for run in known if not reasons.get(run.project_id)]
    free = max(0, max_concurrent_runs - running)
    launch, rest = waiting[:free], waiting[free:]
    # A run starts when all but (slots - 1) of those before it have ended.
    before = running + len(launch) - max_concurrent_runs + 1
    told = [(run, waiting_reason(run, waits_for(before + place))) for place, run in enumerate(rest)]
    told += [(run, waiting_reason(run, reasons[run.project_id])) for run in known if reasons.get(run.project_id)]
    return Plan(tuple(launch), tuple((run, reason) for run, reason in told if run.reason != reason))


def waiting_reason(run: Run, waits: str) -> str:
    """What a waiting run says; one that was interrupted goes on saying why."""
    why = run.reason.split(CLAUSE)[0] if run.attempts else ""
    return f"{why}{CLAUSE}{waits}" if why else waits


def waits_for(runs: int) -> str:
    """The reason of a run that waits for its turn."""
    return f"waits for {runs} run{'' if runs == 1 else 's'} to end"
