"""The reconciler: passes over every running project, woken by changes and by a timer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable

from rekindle.errors import Cancelled, RekindleError
from rekindle_servicekit.bell import Bell
from rekindle_servicekit.loops import run_until_stopped
from rekindle_servicekit.workers import Workers

from rekindle_scheduler.actions.carry_out import TRANSIENT, clear_waiting, note_waiting, run_pass
from rekindle_scheduler.actions.services import Services
from rekindle_scheduler.domain.ids import ProjectId

_log = logging.getLogger(__name__)

#: Number of steps in a row before a project waits for the next wake-up.
_MAX_STEPS = 200
_FIRST_BACKOFF_S = 0.5


class Backoff:
    """Growing pauses for projects whose steps fail for a while."""

    def __init__(self, longest_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest_s = longest_s
        self._clock = clock
        self._failures: dict[ProjectId, int] = {}
        self._until: dict[ProjectId, float] = {}

    def is_over(self, project_id: ProjectId) -> bool:
        """Whether the project may be tried now."""
        return self._clock() >= self._until.get(project_id, 0.0)

    def fail(self, project_id: ProjectId) -> float:
        """Note a failure; the pause in seconds that follows from it."""
        failures = self._failures.get(project_id, 0)
        pause_s = min(self._longest_s, _FIRST_BACKOFF_S * 2.0 ** min(failures, 30))
        self._failures[project_id] = failures + 1
        self._until[project_id] = self._clock() + pause_s
        return pause_s

    def succeed(self, project_id: ProjectId) -> bool:
        """Whether there had been failures."""
        self._until.pop(project_id, None)
        return self._failures.pop(project_id, 0) > 0


class IdleThrottle:
    """Pauses after looks that found nothing to do and took long: a look at a project is a count of its cases.

    They keep the looks at a project with a million cases to a tenth of the time of one connection.
    """

    #: Length of a look below which it may be long only because the machine is busy with something else.
    _NEGLIGIBLE_S = 0.2
    _SHARE = 9.0

    def __init__(self, longest_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._longest_s = longest_s
        self._clock = clock
        self._until: dict[ProjectId, float] = {}

    def is_over(self, project_id: ProjectId) -> bool:
        """Whether the project may be looked at now."""
        return self._clock() >= self._until.get(project_id, 0.0)

    def after(self, project_id: ProjectId, took_s: float) -> None:
        """Note a look that found nothing to do."""
        if took_s < self._NEGLIGIBLE_S:
            self._until.pop(project_id, None)
        else:
            self._until[project_id] = self._clock() + min(self._longest_s, self._SHARE * took_s)


class Reconciler:
    """Keeps every running project moving. A project has one pass at a time, projects do not wait for each other."""

    def __init__(
        self,
        services: Services,
        bell: Bell,
        workers: Workers,
        *,
        interval_s: float = 1.0,
        backoff_max_s: float = 30.0,
        on_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self._services = services
        self._bell = bell
        self._workers = workers
        self._interval_s = interval_s
        self._backoff = Backoff(backoff_max_s)
        self._throttle = IdleThrottle(backoff_max_s)
        #: Function that cuts off the calls of other services that passes wait for.
        self._on_stop = on_stop
        self._running: dict[ProjectId, asyncio.Task[None]] = {}
        self._first_seen: set[ProjectId] = set()

    async def run(self, stopping: asyncio.Event) -> None:
        """Start passes until told to stop; passes under way are cut off or finished first."""

        async def start_passes() -> None:
            for project_id in await self._workers.run_blocking(self._running_projects):
                self._start_pass(project_id, stopping)

        try:
            await run_until_stopped(
                start_passes, stopping, name="reconcile", interval_s=self._interval_s, bell=self._bell
            )
        finally:
            self._on_stop()
            await asyncio.gather(*self._running.values(), return_exceptions=True)

    def _start_pass(self, project_id: ProjectId, stopping: asyncio.Event) -> None:
        is_due = self._backoff.is_over(project_id) and self._throttle.is_over(project_id)
        if project_id not in self._running and is_due:
            task = asyncio.create_task(self._move(project_id, stopping))
            self._running[project_id] = task
            task.add_done_callback(lambda _: self._running.pop(project_id, None))

    async def _move(self, project_id: ProjectId, stopping: asyncio.Event) -> None:
        """Steps until the project stands still."""
        try:
            for _ in range(_MAX_STEPS):
                began = time.monotonic()
                moved = await self._workers.run_blocking(run_pass, self._services, project_id)
                if not moved:
                    self._throttle.after(project_id, time.monotonic() - began)
                await self._note_success(project_id)
                if stopping.is_set() or not moved:
                    return
                self._bell.ring()
        except Cancelled:
            return
        except TRANSIENT as error:
            await self._note_failure(project_id, error)
        except Exception:
            pause_s = self._backoff.fail(project_id)
            _log.exception("a pass failed; next try in %.1f s", pause_s, extra={"action": "reconcile.error"})
            await self._note(project_id, "a step failed unexpectedly: see the scheduler's log")

    async def _note_success(self, project_id: ProjectId) -> None:
        had_failed = self._backoff.succeed(project_id)
        # What an earlier process has noted is cleared once, by the first pass that succeeds.
        if had_failed or project_id not in self._first_seen:
            self._first_seen.add(project_id)
            await self._workers.run_blocking(clear_waiting, self._services, project_id)
            self._bell.ring()

    async def _note_failure(self, project_id: ProjectId, error: RekindleError) -> None:
        pause_s = self._backoff.fail(project_id)
        _log.warning(
            "waiting: %s; next try in %.1f s",
            error,
            pause_s,
            extra={"action": "reconcile.waiting", "project": project_id, "reason": error.reason},
        )
        await self._note(project_id, error.message)

    async def _note(self, project_id: ProjectId, why: str) -> None:
        """Have the round say what keeps it, for people."""
        try:
            await self._workers.run_blocking(note_waiting, self._services, project_id, why)
        except RekindleError:
            return  # the database itself is away: there is nowhere to note it
        except Exception:
            _log.exception("what a project waits for could not be noted", extra={"action": "reconcile.error"})
            return
        self._bell.ring()

    def _running_projects(self) -> list[ProjectId]:
        with self._services.state.read() as uow:
            return uow.projects.running()
