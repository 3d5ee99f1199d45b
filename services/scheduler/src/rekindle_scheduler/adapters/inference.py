"""The inference service by gRPC."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import grpc
from rekindle.api.common.v1 import common_pb2
from rekindle.api.inference.v1 import inference_pb2 as pb
from rekindle.api.inference.v1 import (
    inference_pb2_grpc,
    segmentations_pb2,
    segmentations_pb2_grpc,
    volumes_pb2,
    volumes_pb2_grpc,
)
from rekindle.convert import from_proto, number_of, to_proto
from rekindle.errors import ModelNotReady, NotFound
from rekindle.vocabulary import Digest, Organ, RunKind

from rekindle_scheduler.adapters.channels import Remote
from rekindle_scheduler.domain.cases import CoarseLabel
from rekindle_scheduler.domain.ids import ModelVersionId, ProjectId, ReceiptId, VolumeId
from rekindle_scheduler.domain.outbox import PublishRequest
from rekindle_scheduler.domain.volumes import Receipt, Volume
from rekindle_scheduler.ports import ModelVersion, PredictionOutcome, PurgedVolumes

_READ_TIMEOUT_S = 30.0
#: Time to load and smoke-test a graph, on a slow machine that trains as well.
_REGISTER_TIMEOUT_S = 300.0
#: Time for each volume of a batch.
_PREDICT_TIMEOUT_S = 600.0
_MAX_VOLUMES = 1000


class GrpcInference:
    """The inference service."""

    def __init__(self, channel: grpc.Channel) -> None:
        self._inference = inference_pb2_grpc.InferenceServiceStub(channel)
        self._volumes = volumes_pb2_grpc.VolumeServiceStub(channel)
        self._segmentations = segmentations_pb2_grpc.SegmentationServiceStub(channel)
        self._remote = Remote("inference")

    def volumes(self, project_id: ProjectId, volume_ids: Sequence[VolumeId]) -> list[Volume]:
        """In the order asked for; NotFound names those that are missing."""
        volumes: list[Volume] = []
        for start in range(0, len(volume_ids), _MAX_VOLUMES):
            batch = volume_ids[start : start + _MAX_VOLUMES]
            request = volumes_pb2.BatchGetVolumesRequest(project_id=project_id, volume_ids=batch)
            response = self._remote.call(self._volumes.BatchGetVolumes, request, _READ_TIMEOUT_S)
            volumes += [_volume(message) for message in response.volumes]
        return volumes

    def receipt(self, project_id: ProjectId, receipt_id: ReceiptId) -> Receipt:
        request = volumes_pb2.GetReceiptRequest(project_id=project_id, receipt_id=receipt_id)
        return _receipt(self._remote.call(self._volumes.GetReceipt, request, _READ_TIMEOUT_S).receipt)

    def model(self, project_id: ProjectId, model_version_id: ModelVersionId) -> ModelVersion:
        return self._model(project_id, pb.ModelSelector(model_version_id=model_version_id))

    def active_model(self, project_id: ProjectId) -> ModelVersion | None:
        try:
            return self._model(project_id, pb.ModelSelector(active=True))
        except (NotFound, ModelNotReady):
            return None

    def register_model(
        self,
        project_id: ProjectId,
        organs: Sequence[Organ],
        kind: RunKind,
        package: Digest,
        *,
        request_id: str,
    ) -> ModelVersion:
        request = pb.RegisterModelRequest(
            request_id=request_id,
            project_id=project_id,
            role=number_of(pb.ModelRole, kind),
            package_digest=package,
            organs=[to_proto(organ, common_pb2.Organ) for organ in organs],
        )
        response = self._remote.call(self._inference.RegisterModel, request, _REGISTER_TIMEOUT_S)
        return _model(response.model)

    def activate_model(
        self,
        project_id: ProjectId,
        model_version_id: ModelVersionId,
        *,
        expected_current: ModelVersionId | None,
        request_id: str,
    ) -> None:
        """VersionConflict where another version is active than expected."""
        request = pb.ActivateModelRequest(
            request_id=request_id,
            project_id=project_id,
            model_version_id=model_version_id,
            expected_current=expected_current or "",
        )
        self._remote.call(self._inference.ActivateModel, request, _REGISTER_TIMEOUT_S)

    def predict(
        self, project_id: ProjectId, model_version_id: ModelVersionId, volume_ids: Sequence[VolumeId]
    ) -> Iterator[PredictionOutcome]:
        """One outcome for each volume, as they come."""
        request = pb.PredictVolumesRequest(
            project_id=project_id,
            model=pb.ModelSelector(model_version_id=model_version_id),
            volume_ids=volume_ids,
        )
        timeout_s = _PREDICT_TIMEOUT_S * max(1, len(volume_ids))
        for response in self._remote.stream(self._inference.PredictVolumes, request, timeout_s):
            yield _outcome(response)

    def publish(self, project_id: ProjectId, request: PublishRequest) -> None:
        """Add a label to the feed of results, or take it back; once, however often it is called."""
        message = to_proto(request, segmentations_pb2.PublishResultRequest, project_id=project_id)
        self._remote.call(self._segmentations.PublishResult, message, _READ_TIMEOUT_S)

    def purge(
        self,
        project_id: ProjectId,
        *,
        volume_ids: Sequence[VolumeId] = (),
        snapshot_digests: Sequence[Digest] = (),
        forget_digests: Sequence[Digest] = (),
        request_id: str,
    ) -> PurgedVolumes:
        request = volumes_pb2.PurgeVolumesRequest(
            request_id=request_id,
            project_id=project_id,
            volume_ids=volume_ids,
            snapshot_digests=snapshot_digests,
            forget_digests=forget_digests,
        )
        answer = self._remote.call(self._volumes.PurgeVolumes, request, _REGISTER_TIMEOUT_S)
        return from_proto(answer, PurgedVolumes, marked=tuple(answer.marked_model_version_ids))

    def _model(self, project_id: ProjectId, selector: pb.ModelSelector) -> ModelVersion:
        request = pb.GetModelRequest(project_id=project_id, model=selector)
        return _model(self._remote.call(self._inference.GetModel, request, _READ_TIMEOUT_S).model)


def _volume(message: volumes_pb2.Volume) -> Volume:
    is_image = message.kind == common_pb2.VOLUME_KIND_IMAGE
    return from_proto(message, Volume, "volume", is_image=is_image, digest=Digest(message.canonical_digest))


def _receipt(message: volumes_pb2.Receipt) -> Receipt:
    voxels = {organ.organ_id: organ.voxels for organ in message.organs}
    return from_proto(message, Receipt, "receipt", voxels=voxels)


def _model(message: pb.Model) -> ModelVersion:
    return from_proto(message, ModelVersion, "model")


def _outcome(message: pb.PredictVolumesResponse) -> PredictionOutcome:
    volume_id = VolumeId(message.volume_id)
    if message.WhichOneof("outcome") != "prediction":
        failure = message.failure
        return PredictionOutcome(
            volume_id=volume_id, coarse_label=None, failure=failure.message or failure.reason or "no outcome"
        )
    return PredictionOutcome(volume_id=volume_id, coarse_label=from_proto(message.prediction, CoarseLabel))
