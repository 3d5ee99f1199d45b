"""Foreign files in a process of its own: one per file, with limits, speaking JSON and raw bytes."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import stat
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from rekindle.errors import InvalidInput, RekindleError
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.adapters import sandbox_child
from rekindle_inference.adapters.sandbox_child import REPORT_FILE, Limits

_log = logging.getLogger(__name__)

_CONTEXT: Final = multiprocessing.get_context("forkserver")
#: How soon a call that was called off is noticed.
_LOOK_S: Final = 0.1
#: A series of 20,000 files names its instances in it.
_MAX_REPORT_BYTES: Final = 4 * 1024 * 1024
_MAX_MESSAGE_CHARACTERS: Final = 500
_REASON: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")

Report = dict[str, Any]


def start_forkserver() -> None:
    """Start the process that children fork from; before grpc or any thread is started in this one."""
    _CONTEXT.set_forkserver_preload([sandbox_child.__name__, "highdicom.seg"])
    forkserver.ensure_running()


class Sandbox:
    """Runs each task in a fresh child. `folder` holds what they write, until it has been taken over."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self.limits = limits

    @contextmanager
    def run(
        self,
        task: Callable[..., None],
        arguments: tuple[Any, ...],
        cancellation: Cancellation,
        *,
        archive: Path | None = None,
    ) -> Generator[tuple[Path, Report]]:
        """The folder in which `task(*arguments, folder, limits)` has left its files, and its report.

        The time for a DICOM `archive` grows with its size.

        InvalidInput with the reason that the child gave; TOO_LARGE or UNREADABLE where it died.
        """
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="parse-") as folder:
            limits = self.limits if archive is None else self.limits.for_archive(archive.stat().st_size)
            child = _CONTEXT.Process(target=task, args=(*arguments, folder, limits), daemon=True)
            child.start()
            try:
                _wait(child, cancellation, limits.wall_s)
            finally:
                child.kill()
                child.join()
            yield Path(folder), _result(Path(folder), child.exitcode)


def _wait(child: BaseProcess, cancellation: Cancellation, wall_s: float) -> None:
    deadline = time.monotonic() + wall_s
    while not connection.wait([child.sentinel], _LOOK_S):
        cancellation.raise_if_set()
        if time.monotonic() > deadline:
            _log.warning("a file was given up after the time limit", extra={"action": "sandbox.timeout"})
            raise _too_large()


def left_behind(path: Path, most_bytes: int) -> bytes:
    """What the child wrote, if it is a plain file: a pipe would block this process, a link lead out of the folder.

    Raises OSError for anything else.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a plain file")
        return file.read(most_bytes)


def unreadable() -> RekindleError:
    """What to raise where a child has left something that it should not have."""
    return InvalidInput("the file could not be read: it may be damaged", reason="UNREADABLE")


def is_reason(text: object) -> bool:
    """Whether it can be the reason of a refusal."""
    return isinstance(text, str) and _REASON.fullmatch(text) is not None


def words(text: str) -> str:
    """A child's message, no longer than messages may be."""
    return text[:_MAX_MESSAGE_CHARACTERS]


def _result(folder: Path, exit_code: int | None) -> Report:
    if exit_code != 0:
        _log.warning("a parser died: %s", exit_code, extra={"action": "sandbox.died"})
        # Killed by a limit (CPU, out of memory), or by what the file did to the parser.
        killed_by_limit = exit_code in (-9, -24, -25)
        raise _too_large() if killed_by_limit else unreadable()
    report = _report(folder / REPORT_FILE)
    if "reason" in report:
        raise _refused(report)
    return report


def _report(path: Path) -> Report:
    try:
        report: Any = json.loads(left_behind(path, _MAX_REPORT_BYTES))
    except (OSError, ValueError, RecursionError):
        raise unreadable() from None
    if not isinstance(report, dict):
        raise unreadable()
    return report


def _refused(report: Report) -> RekindleError:
    reason, message = report["reason"], report.get("message")
    if not (is_reason(reason) and isinstance(message, str)):
        return unreadable()
    return InvalidInput(words(message), reason=reason)


def _too_large() -> RekindleError:
    return InvalidInput(
        "the file needs more memory or time than one file may have: send a smaller volume", reason="TOO_LARGE"
    )
