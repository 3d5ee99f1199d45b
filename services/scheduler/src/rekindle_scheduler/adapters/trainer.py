"""The trainer service by gRPC."""

from __future__ import annotations

from collections.abc import Sequence

import grpc
from rekindle.api.trainer.v1 import trainer_pb2 as pb
from rekindle.api.trainer.v1 import trainer_pb2_grpc
from rekindle.convert import from_proto, to_proto
from rekindle.errors import DependencyUnavailable, InvalidInput, Unsupported
from rekindle.vocabulary import Digest
from rekindle_servicekit.server import MAX_TRAINER_MESSAGE_BYTES

from rekindle_scheduler.adapters.channels import Remote
from rekindle_scheduler.domain.ids import ProjectId, RunId
from rekindle_scheduler.domain.records import TrainingRun
from rekindle_scheduler.ports import RunLimits, RunRequest

_TIMEOUT_S = 30.0
#: Time in which the trainer looks up each volume of a snapshot, or redacts some in every run.
_LONG_TIMEOUT_S = 180.0


class GrpcTrainer:
    """The trainer service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._trainer = trainer_pb2_grpc.TrainerServiceStub(channel)
        self._remote = Remote("trainer")

    def start_run(self, request: RunRequest) -> TrainingRun:
        """The run; the same one where it was started before. InvalidInput for more examples than a call can carry."""
        message = pb.StartRunRequest(
            request_id=request.run_id,
            project_id=request.project_id,
            run_id=request.run_id,
            spec=_spec(request),
            limits=_limits(request.limits),
            without_examples=True,
        )
        _check_size(message)
        return _run(self._remote.call(self._trainer.StartRun, message, _LONG_TIMEOUT_S).run)

    def run(self, project_id: ProjectId, run_id: RunId) -> TrainingRun:
        request = pb.GetRunRequest(project_id=project_id, run_id=run_id, without_examples=True)
        return _run(self._remote.call(self._trainer.GetRun, request, _TIMEOUT_S).run)

    def purge(self, project_id: ProjectId, digests: Sequence[Digest], *, request_id: str) -> tuple[Digest, ...]:
        """The snapshots that have learnt from what the digests named."""
        message = pb.PurgeExamplesRequest(request_id=request_id, project_id=project_id, digests=digests)
        answer = self._remote.call(self._trainer.PurgeExamples, message, _LONG_TIMEOUT_S)
        return tuple(Digest(digest) for digest in answer.snapshot_digests)

    def limit(self, project_id: ProjectId, limits: RunLimits) -> None:
        """For all runs of the project; the trainer keeps to the newest version that it was told."""
        request = pb.SetTrainingLimitsRequest(
            request_id=f"limits {project_id} {limits.version}", project_id=project_id, limits=_limits(limits)
        )
        try:
            self._remote.call(self._trainer.SetTrainingLimits, request, _TIMEOUT_S)
        except Unsupported:
            raise DependencyUnavailable(
                "the trainer is of a release that knows no window and no budget of training: update it",
                reason="TRAINER_TOO_OLD",
            ) from None


def _check_size(message: pb.StartRunRequest) -> None:
    """gRPC would refuse it again and again, as if that could pass."""
    size, count = message.ByteSize(), len(message.spec.training) + len(message.spec.heldout)
    if size > MAX_TRAINER_MESSAGE_BYTES:
        raise InvalidInput(
            f"the snapshot's {count} examples are more than one call to the trainer can carry (about "
            f"{count * MAX_TRAINER_MESSAGE_BYTES // size}): make another project for the rest",
            reason="SNAPSHOT_TOO_LARGE",
        )


def _limits(limits: RunLimits) -> pb.TrainingLimits:
    return to_proto(limits, pb.TrainingLimits)


def _spec(request: RunRequest) -> pb.RunSpec:
    return to_proto(
        request,
        pb.RunSpec,
        initial_weights_digest=request.initial_weights,
        current_package_digest=request.current_package,
        keep_all_components=not request.largest_component,
    )


def _run(message: pb.Run) -> TrainingRun:
    return from_proto(message, TrainingRun, "run")
