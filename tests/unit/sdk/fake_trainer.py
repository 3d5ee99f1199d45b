# ruff: noqa: N802 - methods are named as in the protos
"""The trainer in memory: runs that are told what they did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from fake_world import World, served
from rekindle.api.trainer.v1 import trainer_pb2 as trainer
from rekindle.api.trainer.v1 import trainer_pb2_grpc
from rekindle.errors import NotFound


@served
class FakeTrainer(trainer_pb2_grpc.TrainerServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def ListRuns(self, request: Any, context: Any) -> Any:
        return trainer.ListRunsResponse(runs=reversed(self.world.runs.values()))

    def GetRun(self, request: Any, context: Any) -> Any:
        if request.run_id not in self.world.runs:
            raise NotFound(f"there is no run {request.run_id!r} in this project")
        return trainer.GetRunResponse(run=self.world.runs[request.run_id])

    def CancelRun(self, request: Any, context: Any) -> Any:
        run = self.world.runs[request.run_id]
        run.state = trainer.RUN_STATE_CANCELLED
        return trainer.CancelRunResponse(run=run)

    def GetTrainingLimits(self, request: Any, context: Any) -> Any:
        training = self.world.projects[request.project_id].policy.training
        limits = trainer.TrainingLimits(
            version=1,
            window=training.window if training.window.start else None,
            gpu_seconds_budget=training.gpu_seconds_budget,
        )
        held = "waits for its window: opens at 20:00 Europe/Berlin" if training.window.start else ""
        return trainer.GetTrainingLimitsResponse(
            limits=limits, gpu_seconds=1234.5, gpus_per_process=1, held_reason=held
        )

    def WatchRun(self, request: Any, context: Any) -> Iterator[Any]:
        for metric in self.world.metrics:
            if metric.cursor > request.after_cursor:
                yield trainer.WatchRunResponse(metric=metric)
        yield trainer.WatchRunResponse(run=self.world.runs[request.run_id])
