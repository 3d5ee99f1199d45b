"""The queue: which waiting run starts next, and what the others are told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rekindle_trainer.domain.runs import WAITING, Run, RunState

_AND = "; "


@dataclass(frozen=True, slots=True)
class Plan:
    """What to do with the runs that wait."""

    #: To be started now, oldest first.
    launch: tuple[Run, ...]
    #: Run and its reason for waiting, where that has changed.
    waiting: tuple[tuple[Run, str], ...]


def plan_queue(runs: Sequence[Run], max_concurrent_runs: int) -> Plan:
    """First come, first served, `max_concurrent_runs` at a time; `runs` are all that have not ended."""
    running = sum(run.state is RunState.RUNNING for run in runs)
    waiting = sorted((run for run in runs if run.state in WAITING), key=lambda run: (run.created_at, run.run_id))
    free = max(0, max_concurrent_runs - running)
    launch, rest = waiting[:free], waiting[free:]
    # A run starts when all but (slots - 1) of those before it have ended.
    before = running + len(launch) - max_concurrent_runs + 1
    told = [(run, _reason(run, before + place)) for place, run in enumerate(rest)]
    return Plan(tuple(launch), tuple((run, reason) for run, reason in told if run.reason != reason))


def _reason(run: Run, runs: int) -> str:
    """A run that was interrupted goes on saying why."""
    why = run.reason.split(_AND)[0] if run.attempts else ""
    return f"{why}{_AND}{waits_for(runs)}" if why else waits_for(runs)


def waits_for(runs: int) -> str:
    """The reason of a run that waits for its turn."""
    return f"waits for {runs} run{'' if runs == 1 else 's'} to end"
