"""Supervisor: looks at what is and takes each run one step further; remembers nothing that matters."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial

from rekindle.errors import DependencyUnavailable, RekindleError, VersionConflict
from rekindle.vocabulary import RunState
from rekindle_servicekit import context
from rekindle_servicekit.layout import RunKeys
from rekindle_servicekit.loops import run_until_stopped
from rekindle_servicekit.objects import Objects
from rekindle_servicekit.workers import Workers

from rekindle_trainer.domain.metrics import number_metrics
from rekindle_trainer.domain.queueing import plan_queue, waiting_reason
from rekindle_trainer.domain.retry import ProcessEnd, RetryPolicy, Verdict
from rekindle_trainer.domain.runs import Attempt, AttemptState, Run
from rekindle_trainer.domain.spec import spec_json
from rekindle_trainer.ports import Launcher, LaunchError, ProcessStatus
from rekindle_trainer.state import State, UnitOfWork
from rekindle_trainer.usecases import run_outputs as outputs

_log = logging.getLogger(__name__)

#: How often it is noted that a process is still at work: as much of it is not known where nobody sees it end.
_NOTE_EVERY = timedelta(seconds=15)
_ATTEMPT_STATES = {
    Verdict.SUCCEED: AttemptState.SUCCEEDED,
    Verdict.FAIL: AttemptState.FAILED,
    Verdict.RETRY: AttemptState.DIED,
    Verdict.PREEMPT: AttemptState.PREEMPTED,
}


@dataclass(kw_only=True)
class Supervisor:
    """Starts waiting runs, follows running ones, and commits how they end.

    Any number may work on one database: a process is claimed in the database before it is started, and an
    end is committed only on the version of the run that it was decided on. Blocking; call it from threads.
    """

    state: State
    objects: Objects
    launcher: Launcher
    policy: RetryPolicy = field(default_factory=RetryPolicy)
    max_concurrent_runs: int = 1
    #: How long a claim without a process may be somebody's who is about to start it.
    claim_timeout_s: float = 30.0
    #: Whether what an earlier process left behind has been looked for.
    _has_tidied: bool = False
    #: Set once no further process may be started.
    _is_closing: threading.Event = field(default_factory=threading.Event)

    def run_pass(self) -> None:
        """Take every open run one step further. What goes wrong with one leaves the others alone."""
        if not self._has_tidied:
            self._has_tidied = True
            self._guarded("", lambda _: self._tidy())
        running = [run for run in self._open_runs() if run.state is RunState.RUNNING]
        for run in self._to_be_stopped(running):
            # All at once first, as each needs its time for a checkpoint.
            self._guarded(run.run_id, self._terminate)
        for run in running:
            self._guarded(run.run_id, self.advance)
        if not self._is_closing.is_set() and self._may_start():
            for run, attempt in self._claim_waiting():
                self._guarded(run.run_id, lambda _, run=run, attempt=attempt: self._launch(run, attempt))

    def advance(self, run_id: str) -> None:
        """Follow a running run: read its metrics, and settle it where its process has ended or must end."""
        found = self._find_running(run_id)
        if found is None:
            return
        run, attempt = found
        handle = attempt.handle or self._adopt(run, attempt)
        if handle is None:
            return
        self._tail_metrics(run, attempt)
        held, now = self._held_reason(run.project_id)
        status = self.launcher.poll(handle)
        if run.cancel_requested or (held and status.is_running):
            status = self.launcher.stop(handle)
        elif status.is_running:
            self._note_running(run, attempt, status, now)
            return
        self._tail_metrics(run, attempt)  # what came between the first look and its end
        end = outputs.read_end(self.objects, run, attempt.number, status, held_reason=held)
        self._settle(run, attempt, end)

    def _to_be_stopped(self, running: list[Run]) -> list[Run]:
        """Where these are several; one alone is stopped when it is looked at."""
        if len(running) < 2:
            return []
        with self.state.read() as uow:
            ending = [run for run in running if run.cancel_requested or held_reason(uow, run.project_id)]
        return ending if len(ending) > 1 else []

    def _held_reason(self, project_id: str) -> tuple[str, datetime]:
        with self.state.read() as uow:
            return held_reason(uow, project_id), uow.now

    def _note_running(self, run: Run, attempt: Attempt, status: ProcessStatus, now: datetime) -> None:
        """What there is to say of its process; where that is nothing, it is at work."""
        reason, at_work = status.reason, not status.reason
        is_late = at_work and attempt.seen_at is not None and now - attempt.seen_at >= _NOTE_EVERY
        is_news = attempt.is_at_work != at_work or is_late
        if run.reason == reason and not is_news:
            return
        with self.state.write() as uow:
            if is_news:
                # It may have begun while nobody watched.
                began_at = status.began_at if attempt.began_at is None and at_work else None
                uow.record_sight(attempt, at_work=at_work, at=began_at)
            if run.reason != reason:
                uow.update_run(run.explain(reason))

    def stop_children(self) -> None:
        """Start nothing more and stop what runs: their runs go on at the next start, at no retry."""
        self._is_closing.set()
        running = [run for run in self._open_runs() if run.state is RunState.RUNNING]
        for run in running:  # all at once first, as each needs its time for a checkpoint
            self._guarded(run.run_id, self._terminate)
        for run in running:
            self._guarded(run.run_id, self._stop)

    def _may_start(self) -> bool:
        """Whether something waits, and the store that it needs answers; DependencyUnavailable where it does not.

        Otherwise each pass would begin an attempt in vain.
        """
        waiting = [run for run in self._open_runs() if run.state is not RunState.RUNNING]
        if waiting:
            try:
                self.objects.exists(RunKeys(waiting[0].run_id).spec)
            except DependencyUnavailable as error:
                self._tell_waiting(waiting, f"waits for the object store: {error.message}")
                raise
        return bool(waiting)

    def _tell_waiting(self, waiting: list[Run], why: str) -> None:
        changed = [(run, reason) for run in waiting if (reason := waiting_reason(run, why)) != run.reason]
        if changed:
            with suppress(VersionConflict), self.state.write() as uow:
                for run, reason in changed:
                    uow.update_run(run.wait(reason))

    def _tell_running(self, run_id: str, why: str) -> None:
        """Have a run whose process cannot be followed say so, until it can be again; as far as that can be noted."""
        with suppress(RekindleError), self.state.write() as uow:
            run = uow.find_run(run_id)
            if run is not None and run.state is RunState.RUNNING and run.reason != why:
                uow.update_run(run.explain(why))

    def _terminate(self, run_id: str) -> None:
        found = self._find_running(run_id)
        if found is not None and found[1].handle is not None:
            self.launcher.terminate(found[1].handle)

    def _stop(self, run_id: str) -> None:
        found = self._find_running(run_id)
        if found is None or found[1].handle is None:
            return
        run, attempt = found
        status = self.launcher.stop(found[1].handle)
        self._tail_metrics(run, attempt)
        end = outputs.read_end(self.objects, run, attempt.number, status, was_told_to_stop=True)
        self._settle(run, attempt, end)

    def _claim_waiting(self) -> list[tuple[Run, Attempt]]:
        claimed: list[tuple[Run, Attempt]] = []
        with self.state.write() as uow:
            uow.lock_queue()
            runs = uow.open_runs()
            held = {project_id: held_reason(uow, project_id) for project_id in {run.project_id for run in runs}}
            plan = plan_queue(runs, self.max_concurrent_runs, held)
            for run, reason in plan.waiting:
                uow.update_run(run.wait(reason))
            for waiting in plan.launch:
                run, attempt = waiting.claim(uow.now, self.launcher.gpus)
                uow.add_attempt(attempt)
                claimed.append((uow.update_run(run), attempt))
        return claimed

    def _launch(self, run: Run, attempt: Attempt) -> None:
        try:
            self.objects.put(RunKeys(run.run_id).spec, spec_json(run.spec))
        except DependencyUnavailable:
            self._settle(run, attempt, ProcessEnd(is_unavailable=True))
            return
        except RekindleError as error:
            self._settle(run, attempt, ProcessEnd(launch_error=error.message))
            return
        try:
            handle = self.launcher.launch(run.run_id, attempt.number)
        except LaunchError as error:
            self._settle(run, attempt, ProcessEnd(launch_error=str(error)))
            return
        except DependencyUnavailable as error:
            # Whether it runs is not known: the next passes look for it, and give the claim up where it does not.
            _log.warning("%s", error.message, extra={"action": "run.postponed"})
            return
        with self.state.write() as uow:
            is_ours = uow.record_handle(run.run_id, attempt.number, handle)
        if not is_ours:
            # This took so long that somebody has given the claim up meanwhile.
            self.launcher.stop(handle)

    def _adopt(self, run: Run, attempt: Attempt) -> str | None:
        """The handle of a process whose starter died before noting it; where there is none, wait, then give up."""
        handle = self.launcher.find(run.run_id, attempt.number)
        with self.state.write() as uow:
            if handle is not None:
                return handle if uow.record_handle(run.run_id, attempt.number, handle) else None
            if uow.now - attempt.claimed_at < timedelta(seconds=self.claim_timeout_s):
                return None
            uow.end_attempt(attempt.end(AttemptState.LOST, uow.now, reason="was never started"))
            uow.update_run(
                run.cancel(uow.now)
                if run.cancel_requested
                else run.requeue("its process was never started: starts again", is_failure=False)
            )
        return None

    def _settle(self, run: Run, attempt: Attempt, end: ProcessEnd) -> None:
        """Commit the end of an attempt and what it means for the run, both or neither."""
        with self.state.write() as uow:
            if attempt.began_at is None and end.began_at is not None:
                uow.record_sight(attempt, at_work=True, at=end.began_at)
            ended_as = partial(attempt.end, now=uow.now, exit_code=end.exit_code, ended_at=end.ended_at)
            if run.cancel_requested:
                ended = ended_as(AttemptState.CANCELLED)
                changed = run.cancel(uow.now)
            else:
                decision = self.policy.decide(end, run.failures)
                ended = ended_as(_ATTEMPT_STATES[decision.verdict], reason=decision.reason)
                changed = _decided(run, attempt, end, decision.verdict, decision.reason, uow)
            uow.end_attempt(ended)
            uow.update_run(changed)
        self._remove_checkpoints(changed, attempt)
        _log.info(
            "attempt %d ended, the run is %s",
            attempt.number,
            changed.state,
            extra={"action": "run.attempt-ended"},
        )

    def _remove_checkpoints(self, run: Run, attempt: Attempt) -> None:
        """Those that nothing goes on from any more: of a run that has ended all, else those of attempts before."""
        with suppress(DependencyUnavailable):  # what is left is removed with the next attempt's, or at the next start
            if run.has_ended:
                outputs.remove_checkpoints(self.objects, run.run_id)
            else:
                outputs.remove_older_checkpoints(self.objects, run.run_id, attempt.number)

    def _tidy(self) -> None:
        """Remove the checkpoints of runs whose supervisor died between their end and this, or whose store was away."""
        for run_id in outputs.runs_with_checkpoints(self.objects):
            with self.state.read() as uow:
                run = uow.find_run(run_id)
            if run is not None and run.has_ended:
                outputs.remove_checkpoints(self.objects, run_id)

    def _tail_metrics(self, run: Run, attempt: Attempt) -> None:
        with self.state.read() as uow:
            last = uow.last_metric(run.run_id, attempt.number)
        seen = 0 if last is None else last.number
        records = outputs.read_metrics(self.objects, run.run_id, attempt.number, seen)
        if not records:
            return
        with self.state.write() as uow:
            newest = uow.last_metric(run.run_id)
            own = uow.last_metric(run.run_id, attempt.number)
            new = number_metrics(
                records,
                attempt=attempt.number,
                seen=0 if own is None else own.number,
                last_cursor=0 if newest is None else newest.cursor,
                now=uow.now,
            )
            uow.add_metrics(run.run_id, new)

    def _open_runs(self) -> list[Run]:
        with self.state.read() as uow:
            return uow.open_runs()

    def _find_running(self, run_id: str) -> tuple[Run, Attempt] | None:
        with self.state.read() as uow:
            run = uow.find_run(run_id)
            if run is None or run.state is not RunState.RUNNING:
                return None
            attempt = uow.find_attempt(run_id, run.attempts)
        return None if attempt is None else (run, attempt)

    def _guarded(self, run_id: str, step: Callable[[str], None]) -> None:
        with context.bind(run=run_id):
            try:
                step(run_id)
            except VersionConflict:
                _log.debug("somebody else was faster", extra={"action": "run.conflict"})
            except RekindleError as error:
                _log.warning("%s: %s", error.reason, error.message, extra={"action": "run.postponed"})
                self._tell_running(run_id, f"cannot be looked after now: {error.message}")
            except Exception:
                _log.exception("the run could not be looked after", extra={"action": "run.step-failed"})
                self._tell_running(run_id, "cannot be looked after: see the trainer's log")


def held_reason(uow: UnitOfWork, project_id: str) -> str:
    """Why the project's runs may not run now; empty where they may."""
    limits = uow.find_limits(project_id)
    return limits.held_reason(uow.gpu_seconds(project_id), uow.now)


def _decided(run: Run, attempt: Attempt, end: ProcessEnd, verdict: Verdict, reason: str, uow: UnitOfWork) -> Run:
    if verdict is Verdict.SUCCEED:
        assert end.result is not None
        return run.succeed(attempt.number, end.result, uow.now)
    if verdict is Verdict.FAIL:
        return run.fail(reason, uow.now)
    if verdict is Verdict.RETRY:
        return run.requeue(reason, is_failure=True)
    return run.preempt(reason)


async def supervise(
    supervisor: Supervisor,
    workers: Workers,
    stopping: asyncio.Event,
    *,
    interval_s: float,
    stop_children_on_exit: bool,
) -> None:
    """Passes, until the service stops; then running processes are stopped too, or left to the next one."""

    async def step() -> None:
        await workers.run_blocking(supervisor.run_pass)

    await run_until_stopped(step, stopping, name="supervisor", interval_s=interval_s)
    if stop_children_on_exit:
        await workers.run_blocking(supervisor.stop_children)
