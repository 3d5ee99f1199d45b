"""Reader of foreign files in a process of its own: one per file, with limits, speaking JSON and raw bytes."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import re
import stat
import tempfile
import time
from multiprocessing import connection, forkserver
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Final

from rekindle.errors import InvalidInput, RekindleError
from rekindle_imaging import canonical
from rekindle_imaging.errors import VolumeError
from rekindle_servicekit.workers import Cancellation

from rekindle_inference.adapters import sandbox_child
from rekindle_inference.adapters.sandbox_child import CANONICAL_FILE, REPORT_FILE, Limits
from rekindle_inference.domain.records import FileFormat, VolumeKind
from rekindle_inference.ports import Parsed

_log = logging.getLogger(__name__)

_CONTEXT: Final = multiprocessing.get_context("forkserver")
#: How soon a call that was called off is noticed.
_LOOK_S: Final = 0.1
_MAX_REPORT_BYTES: Final = 64 * 1024
_MAX_MESSAGE_CHARACTERS: Final = 500
_REASON: Final = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


def start_forkserver() -> None:
    """Start the process that children fork from; before grpc or any thread is started in this one."""
    _CONTEXT.set_forkserver_preload([sandbox_child.__name__])
    forkserver.ensure_running()


class SandboxReader:
    """Reads each file in a fresh child. `folder` holds what they write, until it has been taken over."""

    def __init__(self, folder: Path, limits: Limits) -> None:
        self._folder = folder
        self._limits = limits

    def read(self, path: Path, kind: VolumeKind, format: FileFormat, cancellation: Cancellation) -> Parsed:
        """What the file holds. InvalidInput with the reader's reason; TOO_LARGE or UNREADABLE where it died."""
        with tempfile.TemporaryDirectory(dir=self._folder, prefix="parse-") as folder:
            arguments = (str(path), kind.value, format.value, folder, self._limits)
            child = _CONTEXT.Process(target=sandbox_child.parse, args=arguments, daemon=True)
            child.start()
            try:
                self._wait(child, cancellation)
            finally:
                child.kill()
                child.join()
            return Parsed(data=self._result(Path(folder), child.exitcode, kind))

    def _wait(self, child: BaseProcess, cancellation: Cancellation) -> None:
        deadline = time.monotonic() + self._limits.wall_s
        while not connection.wait([child.sentinel], _LOOK_S):
            cancellation.raise_if_set()
            if time.monotonic() > deadline:
                _log.warning("a file was given up after the time limit", extra={"action": "sandbox.timeout"})
                raise _too_large()

    def _result(self, folder: Path, exit_code: int | None, kind: VolumeKind) -> bytes:
        if exit_code != 0:
            _log.warning("a parser died: %s", exit_code, extra={"action": "sandbox.died"})
            # Killed by a limit (CPU, out of memory), or by what the file did to the parser.
            killed_by_limit = exit_code in (-9, -24, -25)
            raise _too_large() if killed_by_limit else _unreadable()
        report = _report(folder / REPORT_FILE)
        if "reason" in report:
            raise _refused(report)
        return self._taken_over(folder / CANONICAL_FILE, report, kind)

    def _taken_over(self, path: Path, report: dict[str, Any], kind: VolumeKind) -> bytes:
        """The child has seen hostile bytes: what it left is checked like anything from outside."""
        try:
            data = left_behind(path, self._limits.output_bytes)
            header = canonical.read_header(data)
            if header["kind"] != kind.value or canonical.digest(data) != report.get("digest"):
                raise _unreadable()
            canonical.decode(data, max_voxels=self._limits.max_voxels)
        except (OSError, VolumeError):
            raise _unreadable() from None
        return data


def left_behind(path: Path, most_bytes: int) -> bytes:
    """What the child wrote, if it is a plain file: a pipe would block this process, a link lead out of the folder.

    Raises OSError for anything else.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    with os.fdopen(descriptor, "rb") as file:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("not a plain file")
        return file.read(most_bytes)


def _report(path: Path) -> dict[str, Any]:
    try:
        report: Any = json.loads(left_behind(path, _MAX_REPORT_BYTES))
    except (OSError, ValueError, RecursionError):
        raise _unreadable() from None
    if not isinstance(report, dict):
        raise _unreadable()
    return report


def _refused(report: dict[str, Any]) -> RekindleError:
    reason, message = report["reason"], report.get("message")
    if not (isinstance(reason, str) and _REASON.fullmatch(reason) and isinstance(message, str)):
        return _unreadable()
    return InvalidInput(message[:_MAX_MESSAGE_CHARACTERS], reason=reason)


def _too_large() -> RekindleError:
    return InvalidInput(
        "the file needs more memory or time than one file may have: send a smaller volume", reason="TOO_LARGE"
    )


def _unreadable() -> RekindleError:
    return InvalidInput("the file could not be read: it may be damaged", reason="UNREADABLE")
