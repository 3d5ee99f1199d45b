"""The real service in this process, a phantom abdomen, and a small package that segments it by thresholds."""

import asyncio
import hashlib
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
import SimpleITK as sitk
from phantom import ORGANS, Phantom, manifest_for, threshold_onnx
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import segmentations_pb2 as segmentations
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from rekindle.api.inference.v1.segmentations_pb2_grpc import SegmentationServiceStub
from rekindle.api.inference.v1.volumes_pb2_grpc import VolumeServiceStub
from rekindle_inference.adapters.sandbox import start_forkserver
from rekindle_inference.service import Service, build_service
from rekindle_inference.settings import Settings
from rekindle_servicekit.database import read

PROJECT = "project-a"


@dataclass
class Running:
    """The service and what talks to it."""

    service: Service
    volumes: VolumeServiceStub
    inference: InferenceServiceStub
    segmentations: SegmentationServiceStub
    objects_directory: Path

    def upload(self, path: Path, **header: Any) -> volumes.UploadVolumeResponse:
        """Send a file; an image by default. `header` replaces fields, `chunk_bytes` the size of chunks."""
        data, size = path.read_bytes(), header.pop("chunk_bytes", 1024)
        fields = {
            "request_id": uuid.uuid4().hex,
            "project_id": PROJECT,
            "kind": common.VOLUME_KIND_IMAGE,
            "format": common.FILE_FORMAT_NIFTI,
            "sha256": hashlib.sha256(data).hexdigest(),
            "modality": common.MODALITY_CT,
            **header,
        }
        chunks = [data[first : first + size] for first in range(0, len(data), size)]
        first = volumes.UploadVolumeRequest(header=volumes.UploadVolumeHeader(**fields))
        parts = [first, *(volumes.UploadVolumeRequest(chunk=chunk) for chunk in chunks)]
        return self.volumes.UploadVolume(iter(parts), timeout=60)

    def upload_mask(self, path: Path, image_volume_id: str, **header: Any) -> volumes.UploadVolumeResponse:
        fields: dict[str, Any] = {
            "kind": common.VOLUME_KIND_MASK,
            "modality": common.MODALITY_UNSPECIFIED,
            "image_volume_id": image_volume_id,
            "organs": ORGANS,
        }
        return self.upload(path, **{**fields, **header})

    def upload_package(self, manifest: bytes, model: bytes) -> str:
        header = inference.UploadPackageHeader(project_id=PROJECT, manifest=manifest)
        parts = [
            inference.UploadPackageRequest(header=header),
            inference.UploadPackageRequest(chunk=model[:100]),
            inference.UploadPackageRequest(chunk=model[100:]),
        ]
        return self.inference.UploadPackage(iter(parts), timeout=60).package_digest

    def register(self, package_digest: str, **changes: Any) -> inference.Model:
        fields = {
            "request_id": uuid.uuid4().hex,
            "project_id": PROJECT,
            "role": inference.MODEL_ROLE_IGNITER,
            "package_digest": package_digest,
            "organs": ORGANS,
            **changes,
        }
        return self.inference.RegisterModel(inference.RegisterModelRequest(**fields), timeout=60).model

    def activate(self, model: inference.Model, expected: str = "") -> inference.ActivateModelResponse:
        request = inference.ActivateModelRequest(
            request_id=uuid.uuid4().hex,
            project_id=PROJECT,
            model_version_id=model.model_version_id,
            expected_current=expected,
        )
        return self.inference.ActivateModel(request, timeout=60)

    def predict(self, *volume_ids: str, **selector: Any) -> list[inference.PredictVolumesResponse]:
        request = inference.PredictVolumesRequest(
            project_id=PROJECT,
            model=inference.ModelSelector(**(selector or {"active": True})),
            volume_ids=volume_ids,
        )
        return list(self.inference.PredictVolumes(request, timeout=60))

    def create(self, volume_id: str, **fields: Any) -> segmentations.Segmentation:
        """Ask for a segmentation with the active model, unless `fields` say otherwise."""
        given = {
            "request_id": uuid.uuid4().hex,
            "project_id": PROJECT,
            "volume_id": volume_id,
            "model": inference.ModelSelector(active=True),
            **fields,
        }
        request = segmentations.CreateSegmentationRequest(**given)
        return self.segmentations.CreateSegmentation(request, timeout=60).segmentation

    def watch(self, segmentation: segmentations.Segmentation, after: int = 0) -> Any:
        """The call that answers each change."""
        request = segmentations.WatchSegmentationRequest(
            project_id=PROJECT, segmentation_id=segmentation.segmentation_id, after_cursor=after
        )
        return self.segmentations.WatchSegmentation(request, timeout=60)

    def ended(self, segmentation: segmentations.Segmentation) -> segmentations.Segmentation:
        """How it has ended, once it has."""
        return list(self.watch(segmentation))[-1].segmentation

    def get(self, segmentation: segmentations.Segmentation) -> segmentations.Segmentation:
        request = segmentations.GetSegmentationRequest(project_id=PROJECT, segmentation_id=segmentation.segmentation_id)
        return self.segmentations.GetSegmentation(request, timeout=60).segmentation

    def cancel(self, segmentation: segmentations.Segmentation) -> segmentations.Segmentation:
        request = segmentations.CancelSegmentationRequest(
            request_id=uuid.uuid4().hex, project_id=PROJECT, segmentation_id=segmentation.segmentation_id
        )
        return self.segmentations.CancelSegmentation(request, timeout=60).segmentation

    def result(self, result_id: str) -> segmentations.Result:
        request = segmentations.GetResultRequest(project_id=PROJECT, result_id=result_id)
        return self.segmentations.GetResult(request, timeout=60).result

    def publish(self, mask_volume_id: str, submission_id: str, **fields: Any) -> segmentations.Result:
        """Publish a corrected mask, unless `fields` say otherwise."""
        given = {
            "request_id": uuid.uuid4().hex,
            "project_id": PROJECT,
            "mask_volume_id": mask_volume_id,
            "submission_id": submission_id,
            "origin": segmentations.RESULT_ORIGIN_CORRECTED,
            **fields,
        }
        return self.segmentations.PublishResult(segmentations.PublishResultRequest(**given), timeout=60).result

    def feed(self, count: int, after: int = 0) -> list[segmentations.Result]:
        """The next `count` results of the project's feed."""
        request = segmentations.WatchResultsRequest(project_id=PROJECT, after_cursor=after)
        call = self.segmentations.WatchResults(request, timeout=60)
        found = [next(call).result for _ in range(count)]
        call.cancel()
        return found

    def limit(self, *limits: inference.QualityLimit) -> None:
        request = segmentations.SetQualityLimitsRequest(request_id=uuid.uuid4().hex, project_id=PROJECT, limits=limits)
        self.segmentations.SetQualityLimits(request, timeout=60)

    def download(self, volume_id: str, folder: Path) -> tuple[volumes.DownloadHeader, sitk.Image]:
        request = volumes.DownloadVolumeRequest(project_id=PROJECT, volume_id=volume_id)
        answers = list(self.volumes.DownloadVolume(request, timeout=60))
        path = folder / f"{volume_id}.nii.gz"
        path.write_bytes(b"".join(answer.chunk for answer in answers[1:]))
        return answers[0].header, sitk.ReadImage(str(path))

    def rows(self) -> int:
        """Volumes, receipts, models and answered requests that the database holds."""
        with read(self.service.state.engine) as connection:
            tables = ("volumes", "receipts", "models", "requests")
            return sum(connection.exec_driver_sql(f"SELECT count(*) FROM {t}").scalar() for t in tables)


@pytest.fixture(scope="session")
def forkserver() -> None:
    start_forkserver()


@pytest.fixture
def phantom() -> Phantom:
    return Phantom()


@pytest.fixture
def package(phantom: Phantom) -> tuple[bytes, bytes]:
    """Manifest and model that segment the phantom exactly."""
    model = threshold_onnx(phantom.thresholds()).SerializeToString()
    return manifest_for(model, phantom.thresholds()), model


@pytest.fixture
def make_onnx() -> Any:
    return threshold_onnx


@pytest.fixture
def make_manifest() -> Any:
    return manifest_for


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        address="127.0.0.1:0",
        health_address=None,
        database_url=f"sqlite:///{tmp_path}/state.sqlite3",
        objects_directory=tmp_path / "objects",
        temporary_directory=tmp_path / "incoming",
        max_file_bytes=2_000_000,
        engine_batch=5,
    )


@pytest.fixture
def start(settings: Settings, forkserver: None) -> Iterator[Any]:
    """Starts services, on a loop in a thread, and ends them with the test; `start.stop` ends one before."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    started: dict[str, tuple[Service, grpc.Channel, Any]] = {}

    async def start_service(engine: Any, changed: Settings, parts: dict[str, Any]) -> tuple[Service, Any]:
        service = build_service(changed, engine=engine, **parts)
        await service.server.start()
        return service, asyncio.ensure_future(service.dispatcher.run(service.server.stopping))

    def start(engine: Any = None, *, changes: dict[str, Any] | None = None, **parts: Any) -> Running:
        changed = settings.model_copy(update=changes or {})
        service, work = asyncio.run_coroutine_threadsafe(start_service(engine, changed, parts), loop).result(60)
        channel = grpc.insecure_channel(service.server.address)
        started[service.server.address] = (service, channel, work)
        return Running(
            service,
            VolumeServiceStub(channel),
            InferenceServiceStub(channel),
            SegmentationServiceStub(channel),
            settings.objects_directory,
        )

    async def stop_service(service: Service, work: Any, grace_s: float) -> None:
        await service.server.stop(grace_s)
        await work

    def stop(running: Running, grace_s: float = 5.0) -> None:
        service, channel, work = started.pop(running.service.server.address)
        asyncio.run_coroutine_threadsafe(stop_service(service, work, grace_s), loop).result(60)
        channel.close()
        service.close()

    start.stop = stop
    yield start
    for service, _, _ in list(started.values()):
        stop(Running(service, None, None, None, settings.objects_directory), 0)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def running(start: Any) -> Running:
    return start()


@pytest.fixture
def active(running: Running, package: tuple[bytes, bytes]) -> Running:
    """The same, with a project that has an active model."""
    running.activate(running.register(running.upload_package(*package)))
    return running
