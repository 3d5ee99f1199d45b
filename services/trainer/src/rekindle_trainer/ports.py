"""What the trainer's decisions need from outside: state, launcher; objects come from the service kit."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from rekindle_servicekit.principal import Principal

from rekindle_trainer.domain.limits import TrainingLimits
from rekindle_trainer.domain.metrics import Metric
from rekindle_trainer.domain.runs import Attempt, Run, RunState


class Transaction(Protocol):
    """Runs, attempts and metrics as of one moment."""

    @property
    def now(self) -> datetime:
        """The transaction's moment, with time zone."""
        ...

    def find_run(self, run_id: str) -> Run | None: ...

    def add_run(self, run: Run) -> None: ...

    def update_run(self, run: Run) -> Run:
        """Store a changed run, whose version grows; VersionConflict where `run` was not the newest."""
        ...

    def page_runs(self, project_id: str, limit: int, before: tuple[datetime, str] | None) -> list[Run]:
        """Runs of a project, newest first, that come after the one with this (created_at, run_id)."""
        ...

    def runs_after(self, run_id: str, limit: int) -> list[Run]:
        """Runs of all projects in the order of their ids, from behind this one on."""
        ...

    def open_runs(self) -> list[Run]:
        """Runs that have not ended, oldest first."""
        ...

    def count_runs(self) -> Mapping[RunState, int]:
        """Runs of all projects by state."""
        ...

    def newest_success(self) -> Run | None:
        """The run that succeeded last, of whatever project."""
        ...

    def lock_queue(self) -> None:
        """Let nobody else claim a run until this transaction has ended."""
        ...

    def find_attempt(self, run_id: str, number: int) -> Attempt | None: ...

    def add_attempt(self, attempt: Attempt) -> None: ...

    def end_attempt(self, attempt: Attempt) -> None:
        """Store the end of an attempt; VersionConflict where it had ended before."""
        ...

    def record_handle(self, run_id: str, number: int, handle: str) -> bool:
        """Note how the attempt's process is found again; False where it has another one or has ended."""
        ...

    def record_sight(self, attempt: Attempt, *, at_work: bool, at: datetime | None = None) -> None:
        """Note whether the attempt's process is at work now, unless somebody has noted it since `attempt` was read.

        `at` is for another moment than now.
        """
        ...

    def find_limits(self, project_id: str) -> TrainingLimits:
        """Without any where nobody has limited the project."""
        ...

    def set_limits(self, project_id: str, limits: TrainingLimits) -> None:
        """Unless newer ones are there."""
        ...

    def gpu_seconds(self, project_id: str) -> float:
        """Spent by all runs of a project until now."""
        ...

    def last_metric(self, run_id: str, attempt: int | None = None) -> Metric | None:
        """The newest metric of the run, or of one attempt."""
        ...

    def add_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        """VersionConflict where somebody else has stored one of them."""
        ...

    def metrics_after(self, run_id: str, cursor: int, limit: int) -> list[Metric]: ...

    def was_answered(self, principal: Principal, method: str, request_id: str, request_digest: str) -> bool:
        """Whether this request was carried out before; AlreadyExists where its id belongs to another one."""
        ...

    def mark_answered(self, principal: Principal, method: str, request_id: str, request_digest: str) -> None: ...


class State(Protocol):
    """Where runs are kept."""

    def read(self) -> AbstractContextManager[Transaction]: ...

    def write(self) -> AbstractContextManager[Transaction]:
        """All or nothing: rolled back on any exception."""
        ...


class PurgeTransaction(Protocol):
    """One transaction that strikes erased volumes out of a project's runs."""

    def runs_of(self, project_id: str) -> list[Run]: ...

    def strike(self, project_id: str, stand_ins: Mapping[str, str]) -> None:
        """Replace texts wherever a run or an attempt of the project has them."""
        ...

    def cancel(self, run_ids: Collection[str]) -> None:
        """Cancel runs that have not ended; the processes of running ones are stopped by whoever looks after them."""
        ...

    def answer_to(self, principal: Principal, method: str, request_id: str, request_digest: str) -> bytes | None: ...

    def answer(
        self, principal: Principal, method: str, request_id: str, request_digest: str, response: bytes
    ) -> None: ...


class PurgeState(Protocol):
    """Where runs are kept, for erasing."""

    def purge(self) -> AbstractContextManager[PurgeTransaction]: ...

    def wipe(self) -> None:
        """Leave no trace of what was struck in the files of an embedded database."""
        ...


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
