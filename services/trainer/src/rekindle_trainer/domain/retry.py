"""What becomes of a run when its process has ended: a decision as a value, carried out elsewhere."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from rekindle.vocabulary import RunResult

#: Between what has happened to a run and what it waits for.
CLAUSE = "; "
BAD_SPEC_CODE = 2
#: What it needs stayed away: no fault of the run's.
UNAVAILABLE_CODE = 75
#: 128 + SIGABRT.
ABORTED_CODE = 134
#: 128 + SIGTERM: the process wrote a checkpoint and stopped because it was told to.
STOPPED_CODE = 143


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """What a process said before it gave up: ``failure.json``."""

    #: UPPER_SNAKE.
    reason: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ProcessEnd:
    """All that is known of a process that has ended."""

    #: Negative for a signal; None where nobody saw it end.
    exit_code: int | None = None
    result: RunResult | None = None
    #: Why the result that it left cannot be used.
    bad_result: str | None = None
    failure: Failure | None = None
    #: The service told it to stop, to go on later.
    was_told_to_stop: bool = False
    #: Why it may not go on now.
    held_reason: str = ""
    #: What it takes to start it was away.
    is_unavailable: bool = False
    #: Why it could not even be started.
    launch_error: str | None = None
    #: How it ended, in the words of whoever ran it.
    words: str = ""
    #: It was taken off its machine through no fault of its own.
    was_preempted: bool = False
    #: Another attempt would end in the same way.
    is_final: bool = False
    #: When it began to work and when it ended, by its machine's clock; None where that is not known.
    began_at: datetime | None = None
    ended_at: datetime | None = None


class Verdict(StrEnum):
    SUCCEED = "succeed"
    FAIL = "fail"
    #: Again, and it counts.
    RETRY = "retry"
    #: Again, and it does not count.
    PREEMPT = "preempt"


@dataclass(frozen=True, slots=True)
class Decision:
    verdict: Verdict
    #: In words.
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a run whose process dies is tried again."""

    #: Attempts that may die before the run fails, beyond the first.
    max_retries: int = 3
    #: Failures that a process reports and that may heal by themselves.
    transient_reasons: frozenset[str] = frozenset(
        {"DEPENDENCY_UNAVAILABLE", "DATABASE_UNAVAILABLE", "RANK_LOST", "COLLECTIVE_TIMEOUT"}
    )

    def decide(self, end: ProcessEnd, failures: int) -> Decision:
        """What to do after `end`, where `failures` attempts of the run have died before."""
        if end.result is not None:
            return Decision(Verdict.SUCCEED)
        if end.bad_result is not None:
            return Decision(Verdict.FAIL, f"the training process left a result that cannot be used: {end.bad_result}")
        if end.failure is not None and end.failure.reason not in self.transient_reasons:
            return Decision(Verdict.FAIL, f"{end.failure.reason}: {end.failure.message}")
        if end.exit_code == BAD_SPEC_CODE:
            return Decision(
                Verdict.FAIL, "the training process refused the run's spec and did not say why: see its log"
            )
        if end.is_final:
            return Decision(Verdict.FAIL, how_it_ended(end))
        if end.was_preempted:
            return Decision(Verdict.PREEMPT, f"{end.words}: goes on from its last checkpoint")
        if end.held_reason:
            return Decision(Verdict.PREEMPT, f"stopped after a checkpoint{CLAUSE}{end.held_reason}")
        if end.was_told_to_stop or end.exit_code == STOPPED_CODE:
            return Decision(Verdict.PREEMPT, "stopped after a checkpoint: goes on from there")
        if end.is_unavailable or end.exit_code == UNAVAILABLE_CODE:
            return Decision(Verdict.PREEMPT, "the object store was away: goes on from the last checkpoint")
        return self._after_death(how_it_ended(end), failures)

    def _after_death(self, how: str, failures: int) -> Decision:
        if failures >= self.max_retries:
            times = "once" if failures == 0 else f"{failures + 1} times"
            return Decision(Verdict.FAIL, f"{how}; tried {times}, and the policy allows no more")
        left = self.max_retries - failures - 1
        return Decision(Verdict.RETRY, f"{how}: starts again from its last checkpoint, {left} more retries after that")


def how_it_ended(end: ProcessEnd) -> str:
    """A clause for people."""
    if end.launch_error is not None:
        return f"the training process could not be started ({end.launch_error})"
    if end.failure is not None:
        said = f"{end.failure.reason}: {end.failure.message}"
        # Where several train together, one says that it lost another, and whoever ran them why that one ended.
        return f"{end.words} ({said})" if end.words else said
    if end.words:
        return end.words
    code = end.exit_code
    if code is None:
        return "the training process ended while nobody watched, without a result"
    if code == ABORTED_CODE or code == -signal.SIGABRT:
        return (
            "the training process was aborted (SIGABRT: its GPUs did not answer each other in time, or a fault in a "
            "library; see its log)"
        )
    if code == -signal.SIGKILL:
        return "the training process was killed (SIGKILL: out of memory, or by hand)"
    if code < 0:
        return f"the training process was ended by signal {-code}"
    if code == 0:
        return "the training process ended without a result"
    return f"the training process ended with code {code} and did not say why: see its log"
