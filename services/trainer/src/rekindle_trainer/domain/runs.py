"""Run and attempt: the records, and the steps that a run's state allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Final

from rekindle.errors import IllegalTransition
from rekindle.vocabulary import RunResult, RunState

from rekindle_trainer.domain.metrics import Metric
from rekindle_trainer.domain.spec import RunSpec

ENDED: Final = frozenset({RunState.SUCCEEDED, RunState.FAILED, RunState.CANCELLED})
WAITING: Final = frozenset({RunState.QUEUED, RunState.PREEMPTED})
TRANSITIONS: Final[dict[RunState, frozenset[RunState]]] = {
    RunState.QUEUED: frozenset({RunState.RUNNING, RunState.CANCELLED}),
    RunState.RUNNING: ENDED | WAITING,
    RunState.PREEMPTED: frozenset({RunState.RUNNING, RunState.CANCELLED}),
    **{state: frozenset[RunState]() for state in ENDED},
}


class AttemptState(StrEnum):
    """How far one process is, or how it ended."""

    #: Claimed by a supervisor and, once it has a handle, running.
    OPEN = "open"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    #: Died without a word, to be tried again where the policy allows.
    DIED = "died"
    PREEMPTED = "preempted"
    CANCELLED = "cancelled"
    #: Claimed, and never started as far as anyone can tell.
    LOST = "lost"


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One process that tries a run."""

    run_id: str
    #: From 1, without gaps.
    number: int
    state: AttemptState
    #: By which its launcher finds the process again; None until it was started.
    handle: str | None = None
    claimed_at: datetime
    ended_at: datetime | None = None
    #: None where it has not ended or nobody saw how.
    exit_code: int | None = None
    reason: str = ""
    #: That its process takes.
    gpus: int = 0
    #: When its process was first seen at work; None where it was not.
    began_at: datetime | None = None
    #: When it was last noted whether its process is at work, which it is not while its pod waits for a node again.
    seen_at: datetime | None = None
    is_at_work: bool = False
    #: Until then; None where nobody has noted any, as releases before did not.
    worked_seconds: float | None = None

    def see(self, now: datetime, *, at_work: bool) -> Attempt:
        """With what was seen of its process now; between two looks at which it was at work it has worked."""
        return replace(
            self,
            began_at=self.began_at or (now if at_work else None),
            seen_at=now,
            is_at_work=at_work,
            worked_seconds=self.worked_until(now),
        )

    def worked_until(self, moment: datetime) -> float:
        """Seconds of work, if its process is as it was last seen until `moment`."""
        if self.worked_seconds is None:
            return 0.0 if self.began_at is None else max(0.0, (moment - self.began_at).total_seconds())
        since = self.seen_at if self.is_at_work else None
        return self.worked_seconds + (0.0 if since is None else max(0.0, (moment - since).total_seconds()))

    def end(
        self,
        state: AttemptState,
        now: datetime,
        *,
        exit_code: int | None = None,
        reason: str = "",
        ended_at: datetime | None = None,
    ) -> Attempt:
        """This attempt, ended, at `ended_at` where that is known; IllegalTransition where it had ended before."""
        if self.state is not AttemptState.OPEN:
            raise IllegalTransition(f"attempt {self.number} of run {self.run_id} has ended already")
        return replace(self, state=state, ended_at=self.moment(ended_at, now), exit_code=exit_code, reason=reason)

    def moment(self, told: datetime | None, now: datetime) -> datetime:
        """One that another machine's clock told, as one between this attempt's claim and now; now where none did."""
        return now if told is None else min(now, max(told, self.claimed_at))


def waiting_since(created_at: datetime, attempts: Sequence[Attempt]) -> datetime | None:
    """Since when a run that has not ended has waited: to be started, for a node, or in a cluster's queue."""
    before = created_at
    for attempt in sorted(attempts, key=lambda each: each.number):
        if attempt.state is AttemptState.OPEN:
            if attempt.began_at is None:
                return before
            return attempt.seen_at if attempt.seen_at is not None and not attempt.is_at_work else None
        before = attempt.ended_at or before
    return before


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One training run. Methods return the run after a step; IllegalTransition where its state forbids it."""

    run_id: str
    project_id: str
    spec: RunSpec
    snapshot_digest: str
    state: RunState = RunState.QUEUED
    #: Why it waits or has failed, for people.
    reason: str = ""
    #: Who asked for it, as ``issuer/subject``.
    created_by: str
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None
    #: Processes that tried it; also the number of the newest attempt.
    attempts: int = 0
    #: Attempts that count against the retry policy.
    failures: int = 0
    cancel_requested: bool = False
    #: The one attempt whose result is the run's.
    committed_attempt: int | None = None
    result: RunResult | None = None
    latest: Metric | None = None
    #: GPUs times seconds of its attempts, as of when it was read.
    gpu_seconds: float = 0.0
    #: Since when no process works at it; None while one does, and once it has ended.
    waits_since: datetime | None = None
    #: Of its project, as of then; 0 where nobody has limited it.
    limits_version: int = 0
    #: Grows with each stored change; a change of an older version is refused.
    version: int = 0

    @property
    def has_ended(self) -> bool:
        return self.state in ENDED

    def claim(self, now: datetime, gpus: int = 0) -> tuple[Run, Attempt]:
        """Running, with a new attempt whose process is about to be started."""
        run = self._to(RunState.RUNNING, reason="", started_at=self.started_at or now, attempts=self.attempts + 1)
        attempt = Attempt(run_id=self.run_id, number=run.attempts, state=AttemptState.OPEN, claimed_at=now, gpus=gpus)
        return run, attempt

    def wait(self, reason: str) -> Run:
        """The same state with another reason for waiting."""
        if self.state not in WAITING:
            raise IllegalTransition(f"run {self.run_id} is {self.state} and does not wait")
        return replace(self, reason=reason)

    def explain(self, reason: str) -> Run:
        """Running, with what there is to say of its process: why it has not begun; empty for nothing."""
        if self.state is not RunState.RUNNING:
            raise IllegalTransition(f"run {self.run_id} is {self.state} and has no process")
        return replace(self, reason=reason)

    def requeue(self, reason: str, *, is_failure: bool) -> Run:
        """Queued again, for another attempt."""
        return self._to(RunState.QUEUED, reason=reason, failures=self.failures + int(is_failure))

    def preempt(self, reason: str) -> Run:
        """Stopped through no fault of its own; goes on from its checkpoint."""
        return self._to(RunState.PREEMPTED, reason=reason)

    def succeed(self, attempt: int, result: RunResult, now: datetime) -> Run:
        return self._to(RunState.SUCCEEDED, reason="", committed_attempt=attempt, result=result, ended_at=now)

    def fail(self, reason: str, now: datetime) -> Run:
        return self._to(RunState.FAILED, reason=reason, ended_at=now)

    def request_cancel(self) -> Run:
        """Marked: whoever looks after its process stops it, and no result of it counts any more."""
        if self.has_ended:
            raise IllegalTransition(
                f"run {self.run_id} has ended ({self.state}) and stays as it is", reason="RUN_ENDED"
            )
        return replace(self, cancel_requested=True)

    def cancel(self, now: datetime) -> Run:
        return self._to(RunState.CANCELLED, reason="cancelled on request", cancel_requested=True, ended_at=now)

    def _to(self, state: RunState, **changes: object) -> Run:
        if state not in TRANSITIONS[self.state]:
            raise IllegalTransition(f"run {self.run_id} is {self.state} and cannot become {state}")
        return replace(self, state=state, **changes)  # type: ignore[arg-type]
