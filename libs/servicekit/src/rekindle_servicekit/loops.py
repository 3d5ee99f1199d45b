"""Background work: a step that is repeated until the service stops, even where one turn fails."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from rekindle.errors import Cancelled, RekindleError

from rekindle_servicekit.bell import Bell

_log = logging.getLogger(__name__)

_FIRST_PAUSE_S = 1.0


async def run_until_stopped(
    step: Callable[[], Awaitable[float | None]],
    stopping: asyncio.Event,
    *,
    name: str,
    interval_s: float,
    bell: Bell | None = None,
    backoff_max_s: float | None = None,
) -> None:
    """Repeat `step` until `stopping` is set; a turn under way is finished first.

    A step returns the seconds to wait before the next turn: 0 for at once, None for `interval_s`. A ring of `bell`
    since the turn began ends the wait.

    A turn that fails is logged (`action` is "`name`.waiting" for an error of ours, "`name`.error" for one that nobody
    foresaw) and tried again after the interval. With `backoff_max_s` the wait begins at 1 s and doubles with each
    failure in a row, up to that many seconds.
    """
    own_bell = bell or Bell()
    failures = 0
    while not stopping.is_set():
        count = own_bell.count
        try:
            pause_s = await step()
            failures = 0
        except Cancelled:
            pause_s = None
        except Exception as error:
            failures += 1
            _report(name, error)
            pause_s = None if backoff_max_s is None else min(backoff_max_s, _doubled_s(failures))
            count = own_bell.count  # a ring before the failure must not cut the wait short
        if pause_s != 0:
            await own_bell.wait_unless(stopping, count, interval_s if pause_s is None else pause_s)


def _doubled_s(failures: int) -> float:
    return _FIRST_PAUSE_S * 2.0 ** min(failures - 1, 30)


def _report(name: str, error: Exception) -> None:
    if isinstance(error, RekindleError):
        extra = {"action": f"{name}.waiting", "reason": error.reason}
        _log.warning("%s waits: %s", name, error, extra=extra)
    else:
        _log.error("a turn of %s failed", name, exc_info=error, extra={"action": f"{name}.error"})
