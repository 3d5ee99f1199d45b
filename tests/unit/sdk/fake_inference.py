# ruff: noqa: N802 - methods are named as in the protos
"""The inference service in memory: volumes of opaque bytes, uploads in pieces, models without a network."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from fake_world import World, served
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import inference_pb2_grpc, volumes_pb2_grpc
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.errors import IllegalTransition, IntegrityError, ModelNotReady, NotFound, VersionConflict

CHUNK = 1000


@served
class FakeVolumes(volumes_pb2_grpc.VolumeServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def UploadVolume(self, requests: Any, context: Any) -> Any:
        header = next(requests).header
        data = b"".join(part.chunk for part in requests)
        if hashlib.sha256(data).hexdigest() != header.sha256:
            raise IntegrityError("the upload arrived damaged: send it again", reason="DIGEST_MISMATCH")
        if header.request_id not in self.world.uploads:
            self.world.uploads[header.request_id] = self._ingest(header, data)
        return self.world.uploads[header.request_id]

    def UploadStudy(self, requests: Any, context: Any) -> Any:
        header = next(requests).header
        data = b"".join(part.chunk for part in requests)
        assert header.sha256 == hashlib.sha256(data).hexdigest()
        ct = self.world.add_volume(volumes.Volume(project_id=header.project_id, modality=common.MODALITY_CT), data)
        failure = volumes.SeriesFailure(reason="NOT_AN_IMAGE", message="the series holds a report")
        return volumes.UploadStudyResponse(
            series=[
                volumes.SeriesOutcome(series_instance_uid="1.2", modality="CT", volume=ct),
                volumes.SeriesOutcome(series_instance_uid="1.3", modality="SR", failure=failure),
            ]
        )

    def FindVolumes(self, request: Any, context: Any) -> Any:
        # One a page, so that a client that stops at the first page is found out.
        found = [v for v, _ in self.world.volumes.values() if v.source.accession_number == request.accession_number]
        at = int(request.page_token or 0)
        token = str(at + 1) if at + 1 < len(found) else ""
        return volumes.FindVolumesResponse(volumes=found[at : at + 1], next_page_token=token)

    def CreateUpload(self, request: Any, context: Any) -> Any:
        upload = volumes.Upload(
            upload_id=request.request_id,
            size_bytes=request.size_bytes,
            state=volumes.UPLOAD_STATE_OPEN,
            max_chunk_bytes=500_000,
        )
        if request.request_id not in self.world.pieces:
            self.world.pieces[request.request_id] = (request.header, bytearray())
        upload.received_bytes = len(self.world.pieces[request.request_id][1])
        return volumes.CreateUploadResponse(upload=upload)

    def PutChunk(self, request: Any, context: Any) -> Any:
        arrived = self.world.pieces[request.upload_id][1]
        if request.offset != len(arrived):
            expected = {"expected_offset": str(len(arrived))}
            raise IllegalTransition("go on elsewhere", reason="WRONG_OFFSET", metadata=expected)
        arrived += request.data
        return volumes.PutChunkResponse(received_bytes=len(arrived))

    def FinalizeUpload(self, request: Any, context: Any) -> Any:
        header, data = self.world.pieces[request.upload_id]
        answer = self.world.uploads.setdefault(header.request_id, self._ingest(header, bytes(data)))
        return volumes.FinalizeUploadResponse(volume=answer.volume, receipt=answer.receipt)

    def _ingest(self, header: Any, data: bytes) -> Any:
        volume = self.world.add_volume(
            volumes.Volume(project_id=header.project_id, kind=header.kind, modality=header.modality), data
        )
        answer = volumes.UploadVolumeResponse(volume=volume)
        if header.kind == common.VOLUME_KIND_MASK:
            answer.receipt.receipt_id = f"receipt-{volume.volume_id}"
            answer.receipt.mask_volume_id = volume.volume_id
            answer.receipt.image_volume_id = header.image_volume_id
            self.world.receipts[answer.receipt.receipt_id] = answer.receipt
        return answer

    def DownloadVolume(self, request: Any, context: Any) -> Iterator[Any]:
        if request.volume_id not in self.world.volumes:
            raise NotFound(f"there is no volume {request.volume_id!r} in this project")
        volume, data = self.world.volumes[request.volume_id]
        sha256 = volume.original_digest
        if request.format != common.FILE_FORMAT_NIFTI:
            data = common.FileFormat.Name(request.format).encode() + b" of " + data
            sha256 = hashlib.sha256(data).hexdigest()
        header = volumes.DownloadHeader(volume=volume, sha256=sha256, size_bytes=len(data), format=request.format)
        yield volumes.DownloadVolumeResponse(header=header)
        for start in range(0, len(data), CHUNK):
            yield volumes.DownloadVolumeResponse(chunk=data[start : start + CHUNK])

    def ReadVolume(self, request: Any, context: Any) -> Iterator[Any]:
        # Each voxel is its slice's number.
        shape = (request.slice_count or 9, 8 >> request.level, 4 >> request.level)
        header = volumes.ReadVolumeHeader(
            first_slice=request.first_slice,
            slices=shape[0],
            rows=shape[1],
            columns=shape[2],
            voxel_type=volumes.VOXEL_TYPE_INT16,
            geometry=common.Geometry(spacing_mm=[0.5, 0.75, 3.0]),
            window_low=-160,
            window_high=240,
        )
        yield volumes.ReadVolumeResponse(header=header)
        for number in range(request.first_slice, request.first_slice + shape[0]):
            yield volumes.ReadVolumeResponse(chunk=number.to_bytes(2, "little") * (shape[1] * shape[2]))

    def RankSlices(self, request: Any, context: Any) -> Any:
        ranks = self.world.slice_ranks.get(request.mask_volume_id)
        if ranks is None:
            raise NotFound("nothing is known of the slices of this volume", reason="NO_PREDICTION")
        return volumes.RankSlicesResponse(slices=ranks[: request.limit or None])


@served
class FakeInference(inference_pb2_grpc.InferenceServiceServicer):
    def __init__(self, world: World) -> None:
        self.world = world

    def Segment(self, requests: Any, context: Any) -> Iterator[Any]:
        header = next(requests).header
        data = b"".join(part.chunk for part in requests)
        assert header.sha256 == hashlib.sha256(data).hexdigest()
        yield inference.SegmentResponse(progress=inference.SegmentProgress(slices_done=3, slices_total=3))
        mask = data[::-1]
        quality = common.OrganQuality(
            organ_id="liver", soft_dice_confidence=0.9, predicted_ml=1500, components=1, slices=3
        )
        result = inference.SegmentResult(
            model_version_id="model-1",
            sha256=hashlib.sha256(mask).hexdigest(),
            quality=[quality],
            format=header.result_format or header.format,
        )
        yield inference.SegmentResponse(result=result)
        yield inference.SegmentResponse(chunk=mask)

    def ListModels(self, request: Any, context: Any) -> Any:
        return inference.ListModelsResponse(models=reversed(self.world.models.values()))

    def GetModel(self, request: Any, context: Any) -> Any:
        for model in self.world.models.values():
            if model.active if request.model.active else model.model_version_id == request.model.model_version_id:
                return inference.GetModelResponse(model=model)
        raise ModelNotReady("no model serves yet")

    def UploadPackage(self, requests: Any, context: Any) -> Any:
        manifest = next(requests).header.manifest
        self.world.onnx = b"".join(part.chunk for part in requests)
        return inference.UploadPackageResponse(package_digest=hashlib.sha256(manifest).hexdigest())

    def RegisterModel(self, request: Any, context: Any) -> Any:
        number = len(self.world.models) + 1
        model = inference.Model(
            model_version_id=f"model-{number}",
            project_id=request.project_id,
            role=request.role,
            version=number,
            package_digest=request.package_digest,
        )
        self.world.models[model.model_version_id] = model
        return inference.RegisterModelResponse(model=model)

    def ActivateModel(self, request: Any, context: Any) -> Any:
        active = [model.model_version_id for model in self.world.models.values() if model.active]
        if request.expected_current != "".join(active):
            raise VersionConflict("another version serves meanwhile")
        for model in self.world.models.values():
            model.active = model.model_version_id == request.model_version_id
        return inference.ActivateModelResponse(model=self.world.models[request.model_version_id])
