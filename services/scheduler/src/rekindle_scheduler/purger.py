"""Carries erasures to their end, over the services that may be away for a while."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import replace

from rekindle.errors import RekindleError
from rekindle_servicekit import context
from rekindle_servicekit.bell import Bell
from rekindle_servicekit.loops import run_until_stopped
from rekindle_servicekit.workers import Workers

from rekindle_scheduler.actions.services import Services
from rekindle_scheduler.domain.events import Event, EventKind
from rekindle_scheduler.domain.purges import Purge, PurgeState, PurgeWork
from rekindle_scheduler.domain.text import counted

_log = logging.getLogger(__name__)

#: Number of images that inference is asked to erase in one call.
_VOLUMES_AT_ONCE = 100


class Purger:
    """A loop of its own, as a project may be complete, stalled or not begun when a patient is erased."""

    def __init__(self, services: Services, bell: Bell, workers: Workers, *, interval_s: float, retry_s: float) -> None:
        self._services = services
        self._bell = bell
        self._workers = workers
        self._interval_s = interval_s
        self._retry_s = retry_s

    async def run(self, stopping: asyncio.Event) -> None:
        """Advance purges until told to stop."""
        await run_until_stopped(self._advance, stopping, name="purge", interval_s=self._retry_s, bell=self._bell)

    async def _advance(self) -> float | None:
        are_done = await self._workers.run_blocking(advance_purges, self._services)
        return self._interval_s if are_done else None


def advance_purges(services: Services) -> bool:
    """Take every erasure as far as the services allow; whether all have ended."""
    with services.state.read() as uow:
        erasing = uow.purges.erasing()
    done = [_advance(services, purge) for purge in erasing]
    return all(done)


def _advance(services: Services, purge: Purge) -> bool:
    with context.bind(project=purge.project_id):
        try:
            while purge.state is PurgeState.ERASING:
                purge = _step(services, purge)
        except RekindleError as error:
            _note_waiting(services, purge, error)
            return False
        except Exception:
            _log.exception("a purge could not be advanced", extra={"action": "purge.error"})
            return False
    return True


def _step(services: Services, purge: Purge) -> Purge:
    """The next step; each may be repeated, under request ids that are the same each time."""
    work = purge.work
    if work is None:
        return _finish(services, purge)
    if work.erased_digests is None:
        return _erase_volumes(services, purge, work)
    if work.snapshot_digests is None:
        learnt = services.trainer.purge(purge.project_id, work.erased_digests, request_id=f"{purge.purge_id}-examples")
        return _keep(services, purge, replace(purge, work=replace(work, snapshot_digests=learnt)))
    marked = services.inference.purge(
        purge.project_id,
        snapshot_digests=work.snapshot_digests,
        forget_digests=work.erased_digests,
        request_id=f"{purge.purge_id}-marks",
    )
    return _strike(services, replace(purge, marked_model_version_ids=marked.marked), work)


def _erase_volumes(services: Services, purge: Purge, work: PurgeWork) -> Purge:
    volumes = objects = 0
    erased = set[str]()
    for first in range(0, len(work.volume_ids), _VOLUMES_AT_ONCE):
        answer = services.inference.purge(
            purge.project_id,
            volume_ids=work.volume_ids[first : first + _VOLUMES_AT_ONCE],
            request_id=f"{purge.purge_id}-volumes-{first}",
        )
        volumes, objects = volumes + answer.volumes, objects + answer.objects
        erased |= set(answer.erased_digests)
    done = replace(work, erased_digests=tuple(sorted(erased)))
    return _keep(services, purge, replace(purge, volumes=volumes, objects=objects, work=done))


def _keep(services: Services, before: Purge, after: Purge) -> Purge:
    """Store how far it is, unless another scheduler was faster: then its record stays."""
    with services.state.write() as uow:
        current = uow.purges.lock(before)
        if replace(current, waiting_for="") != replace(before, waiting_for=""):
            return current
        after = replace(after, waiting_for="")
        uow.purges.update(after)
    return after


def _strike(services: Services, purge: Purge, work: PurgeWork) -> Purge:
    """Take the last traces out of the rows; what was to be done is forgotten with them."""
    with services.state.write() as uow:
        current = uow.purges.lock(purge)
        if current.state is PurgeState.DONE or current.work is None:
            return current
        uow.purges.redact(purge.project_id, work.erased_digests or ())
        after = replace(purge, work=None, waiting_for="")
        uow.purges.update(after)
    return after


def _finish(services: Services, purge: Purge) -> Purge:
    """Mark the purge done, once its traces have left the database's log too."""
    services.state.wipe()
    with services.state.write() as uow:
        current = uow.purges.lock(purge)
        if current.state is PurgeState.DONE:
            return current
        done = replace(current, state=PurgeState.DONE, waiting_for="", end_time=uow.now)
        uow.purges.update(done)
        marked = len(done.marked_model_version_ids)
        uow.events.add(
            Event(
                project_id=purge.project_id,
                kind=EventKind.PURGE_DONE,
                message=f"{counted(done.volumes, 'volume')} erased, "
                f"{counted(marked, 'model version')} had learnt from them",
                details={"purge_id": purge.purge_id},
            )
        )
    return done


def _note_waiting(services: Services, purge: Purge, error: RekindleError) -> None:
    _log.warning("a purge waits: %s", error.message, extra={"action": "purge.waiting", "reason": error.reason})
    try:
        with services.state.write() as uow:
            current = uow.purges.lock(purge)
            if current.state is PurgeState.ERASING and current.waiting_for != error.message:
                uow.purges.update(replace(current, waiting_for=error.message))
    except RekindleError:
        return  # the database itself is away: there is nowhere to note it
