"""The real service in this process, a phantom abdomen, and a small package that segments it by thresholds."""

import asyncio
import hashlib
import json
import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import onnx
import pytest
import SimpleITK as sitk
from onnx import TensorProto, helper, numpy_helper
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as inference
from rekindle.api.inference.v1 import volumes_pb2 as volumes
from rekindle.api.inference.v1.inference_pb2_grpc import InferenceServiceStub
from rekindle.api.inference.v1.volumes_pb2_grpc import VolumeServiceStub
from rekindle_inference.adapters.sandbox import start_forkserver
from rekindle_inference.service import Service, build_service
from rekindle_inference.settings import Settings

PROJECT = "project-a"
SHAPE = (12, 32, 32)
SPACING = (4.0, 4.0, 5.0)
ORGANS = [common.Organ(id="liver", label_value=6), common.Organ(id="spleen", label_value=1)]
PREPROCESSING = {
    "orientation": "LPS",
    "spacing_mm": [4.0, 4.0],
    "slice_spacing_mm": None,
    "size": [32, 32],
    "crop": "none",
    "window": {"kind": "fixed", "low": -200.0, "high": 250.0},
    "normalization": "zscore",
    "channels": 3,
}


@dataclass
class Phantom:
    """Air at -1000, a body at 0, a liver at 100 and a spleen at 200 HU; the organs' voxels are known."""

    image: np.ndarray = field(default_factory=lambda: np.full(SHAPE, -1000, np.int16))
    mask: np.ndarray = field(default_factory=lambda: np.zeros(SHAPE, np.uint8))

    def __post_init__(self) -> None:
        self.image[:, 4:28, 3:29] = 0
        for box, hu, value in [
            (np.s_[2:10, 8:20, 6:16], 100, 6),
            (np.s_[3:8, 12:20, 20:27], 200, 1),
        ]:
            self.image[box] = hu
            self.mask[box] = value

    def thresholds(self) -> tuple[float, float]:
        """Between body and liver, and between liver and spleen, on the scale that a network sees."""
        seen = np.clip(self.image, -200, 250).astype(np.float64)
        low, high = ((hu - seen.mean()) / seen.std() for hu in (50.0, 150.0))
        return float(low), float(high)

    def file(self, folder: Path, what: str = "image", *, voxels: np.ndarray | None = None, **changes: Any) -> Path:
        """A NIfTI file of the image or the mask; `changes`: spacing, origin."""
        array = voxels if voxels is not None else getattr(self, what)
        picture = sitk.GetImageFromArray(array)
        picture.SetSpacing(changes.get("spacing", SPACING))
        picture.SetOrigin(changes.get("origin", (-60.0, -50.0, 100.0)))
        path = folder / f"{uuid.uuid4().hex}.nii.gz"
        sitk.WriteImage(picture, str(path))
        return path


def threshold_weights(thresholds: tuple[float, float]) -> tuple[np.ndarray, np.ndarray]:
    """A 1 x 1 convolution (K, C, 1, 1) and bias (K,): background, first organ above low, second above high."""
    low, high = thresholds
    weight = np.zeros((3, 3, 1, 1), np.float32)
    weight[1, 1], weight[2, 1] = 10.0, 20.0
    return weight, np.asarray([0.0, -10 * low, -10 * low - 10 * high], np.float32)


def threshold_onnx(thresholds: tuple[float, float]) -> onnx.ModelProto:
    """The graph of `threshold_weights`."""
    weight, bias = threshold_weights(thresholds)
    graph = helper.make_graph(
        [helper.make_node("Conv", ["image", "weight", "bias"], ["logits"])],
        "threshold",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [numpy_helper.from_array(weight, "weight"), numpy_helper.from_array(bias, "bias")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def manifest_for(model: bytes, thresholds: tuple[float, float], **changes: Any) -> bytes:
    """A manifest whose reference is computed here with numpy; `changes` replace top-level keys."""
    images = np.random.default_rng(7).standard_normal((2, 3, 32, 32), dtype=np.float32)
    weight, bias = threshold_weights(thresholds)
    logits = np.einsum("kc,nchw->nkhw", weight[:, :, 0, 0], images) + bias[None, :, None, None]
    fields = {
        "format": 1,
        "network": "external",
        "classes": [{"id": organ.id, "label_value": organ.label_value} for organ in ORGANS],
        "modality": "CT",
        "preprocessing": PREPROCESSING,
        "opset": 18,
        "model_digest": hashlib.sha256(model).hexdigest(),
        "memory_bytes": 1_000_000,
        "reference": {
            "input_seed": 7,
            "batch": 2,
            "logits_sample": [float(x) for x in logits.ravel()[:16]],
            "tolerance": 1e-3,
        },
        "lineage": {"weights_digest": "ab" * 32, "snapshot_digest": "cd" * 32},
        "postprocessing": {"largest_component": True},
        **changes,
    }
    return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()


@dataclass
class Running:
    """The service and what talks to it."""

    service: Service
    volumes: VolumeServiceStub
    inference: InferenceServiceStub
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

    def download(self, volume_id: str, folder: Path) -> tuple[volumes.DownloadHeader, sitk.Image]:
        request = volumes.DownloadVolumeRequest(project_id=PROJECT, volume_id=volume_id)
        answers = list(self.volumes.DownloadVolume(request, timeout=60))
        path = folder / f"{volume_id}.nii.gz"
        path.write_bytes(b"".join(answer.chunk for answer in answers[1:]))
        return answers[0].header, sitk.ReadImage(str(path))

    def rows(self) -> int:
        """Volumes, receipts, models and answered requests that the database holds."""
        with self.service.state.read() as reads:
            connection = reads._connection
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
    """Starts services, on a loop in a thread, and ends them with the test."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    started: list[tuple[Service, grpc.Channel]] = []

    async def start_service(engine: Any) -> Service:
        service = build_service(settings, engine=engine)
        await service.server.start()
        return service

    def start(engine: Any = None) -> Running:
        service = asyncio.run_coroutine_threadsafe(start_service(engine), loop).result(60)
        channel = grpc.insecure_channel(service.server.address)
        started.append((service, channel))
        return Running(service, VolumeServiceStub(channel), InferenceServiceStub(channel), settings.objects_directory)

    yield start
    for service, channel in started:
        channel.close()
        asyncio.run_coroutine_threadsafe(service.server.stop(0), loop).result(60)
        service.close()
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def running(start: Any) -> Running:
    return start()
