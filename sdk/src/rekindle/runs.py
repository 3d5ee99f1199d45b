"""Training runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from rekindle._call import new_request_id
from rekindle._services import Services
from rekindle.api.trainer.v1 import trainer_pb2 as trainer
from rekindle.config import TrainingWindow, window_from_proto
from rekindle.convert import name_of
from rekindle.records import Metric


@dataclass(frozen=True, kw_only=True)
class TrainingLimits:
    """When a project may train and how much, and how it stands."""

    #: Hours in which training may run; None for any time.
    window: TrainingWindow | None
    #: GPU seconds that training may take; 0 for as many as it takes.
    gpu_seconds_budget: float
    #: GPU seconds that all runs of the project have taken.
    gpu_seconds: float
    #: GPUs of one training process; 0 where training takes no GPU and spends nothing.
    gpus_per_process: int
    #: Reason why the project's runs would wait now; empty if they may run.
    held_reason: str

    @classmethod
    def from_proto(cls, answer: trainer.GetTrainingLimitsResponse) -> TrainingLimits:
        return cls(
            window=window_from_proto(answer.limits.window),
            gpu_seconds_budget=answer.limits.gpu_seconds_budget,
            gpu_seconds=answer.gpu_seconds,
            gpus_per_process=answer.gpus_per_process,
            held_reason=answer.held_reason,
        )


class Run:
    """A handle on one training run; `refresh` brings it up to date."""

    def __init__(self, services: Services, run: trainer.Run) -> None:
        self._services = services
        self._run = run

    @property
    def id(self) -> str:
        return self._run.run_id

    @property
    def kind(self) -> str:
        return name_of(trainer.RunKind, self._run.spec.kind)

    @property
    def state(self) -> str:
        """ "queued", "running", "preempted", "succeeded", "failed" or "cancelled"."""
        return name_of(trainer.RunState, self._run.state)

    @property
    def reason(self) -> str:
        return self._run.reason

    @property
    def attempts(self) -> int:
        return self._run.attempts

    @property
    def snapshot_digest(self) -> str:
        return self._run.snapshot_digest

    @property
    def weights_digest(self) -> str:
        """SHA-256 of the finished weights; empty until the run has succeeded."""
        return self._run.result.weights_digest

    @property
    def train_seconds(self) -> float:
        return self._run.result.train_seconds

    @property
    def gpu_seconds(self) -> float:
        """GPUs times seconds of all its attempts so far."""
        return self._run.gpu_seconds

    def held_out_dice(self) -> dict[str, float]:
        """Organ id to the candidate's mean Dice over the held-out cases of the run, native grid."""
        sums: dict[str, list[float]] = {}
        for case in self._run.result.candidate:
            for organ in case.organs:
                if organ.HasField("dice"):
                    sums.setdefault(organ.organ_id, []).append(organ.dice)
        return {organ_id: sum(values) / len(values) for organ_id, values in sums.items()}

    def refresh(self) -> Run:
        request = trainer.GetRunRequest(project_id=self._run.project_id, run_id=self.id, without_examples=True)
        self._run = self._services.trainer.GetRun(request).run
        return self

    def cancel(self) -> Run:
        """Stops the run and its process."""
        request = trainer.CancelRunRequest(
            request_id=new_request_id(), project_id=self._run.project_id, run_id=self.id, without_examples=True
        )
        self._run = self._services.trainer.CancelRun(request).run
        return self

    def watch(self, *, after_cursor: int = 0, timeout_s: float | None = None) -> Iterator[Metric]:
        """Yields metrics after the cursor, then live ones; ends with the run.

        Goes on after the last metric when the service was away for a moment.
        """

        def metrics(cursor: int) -> Iterator[Metric]:
            request = trainer.WatchRunRequest(project_id=self._run.project_id, run_id=self.id, after_cursor=cursor)
            for answer in self._services.trainer.WatchRun(request, timeout=timeout_s or 24 * 3600):
                if answer.WhichOneof("event") == "metric":
                    yield Metric.from_proto(answer.metric)
                else:
                    self._run = answer.run

        return self._services.caller.follow(metrics, after_cursor)
