"""What lies outside the trainer: the launcher of training processes; objects come from the service kit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, slots=True)
class ProcessStatus:
    """Whether an attempt's process runs, and how it ended where that is known."""

    is_running: bool
    exit_code: int | None = None
    #: Why it has not begun, or how it ended, in words for people; empty where there is nothing to say.
    reason: str = ""
    #: It was taken off its machine through no fault of its own.
    was_preempted: bool = False
    #: Another attempt would end in the same way.
    is_final: bool = False
    #: When its process began to work and when it ended, by its machine's clock; None where that is not known.
    began_at: datetime | None = None
    ended_at: datetime | None = None


class LaunchError(Exception):
    """The process could not be started; the message says why, without secrets."""


class Launcher(Protocol):
    """Starts processes that outlive this one, and finds them again by a handle that can be written down."""

    @property
    def gpus(self) -> int:
        """GPUs that one attempt's process takes, on all its nodes together."""
        ...

    def launch(self, run_id: str, attempt: int) -> str:
        """Start the process of an attempt; its handle. The same attempt again is the same process where that can be.

        LaunchError where it cannot be started; DependencyUnavailable where nobody knows whether it was.
        """
        ...

    def find(self, run_id: str, attempt: int) -> str | None:
        """The handle of an attempt's live process, where it was lost between starting and writing it down."""
        ...

    def poll(self, handle: str) -> ProcessStatus: ...

    def terminate(self, handle: str) -> None:
        """Ask it to stop after a checkpoint, and do not wait."""
        ...

    def stop(self, handle: str) -> ProcessStatus:
        """Ask it to stop, and kill it with all its children where it does not; returns once it is gone.

        DependencyUnavailable where that cannot be made sure of now.
        """
        ...
