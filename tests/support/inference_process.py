"""The inference service as a process, and the calls of a client that segments files and moves versions."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import grpc
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from phantom import ORGANS
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import inference_pb2 as messages
from rekindle.api.inference.v1.inference_pb2_grpc import InferenceServiceStub

PROJECT = "project-a"
READY_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Segmented:
    """A mask (slices, rows, columns) and the version that made it."""

    model_version_id: str
    voxels: NDArray[np.uint8]


class InferenceProcess:
    """Started below `folder`; `settings` without the prefix of their variables. As a context manager it runs inside."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        self._folder = folder
        self._settings = settings
        self._process: subprocess.Popen[bytes] | None = None
        self.inference: Any = None

    def __enter__(self) -> Self:
        port_file, log = self._folder / "port.json", (self._folder / "inference.log").open("ab")
        port_file.unlink(missing_ok=True)
        settings = {
            "address": "127.0.0.1:0",
            "health_address": "",
            "database_url": f"sqlite:///{self._folder}/state.sqlite3",
            "objects_directory": self._folder / "objects",
            "temporary_directory": self._folder / "incoming",
            "port_file": port_file,
            **self._settings,
        }
        environment = {f"REKINDLE_INFERENCE_{name.upper()}": str(value) for name, value in settings.items()}
        with log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "rekindle_inference"], env={**os.environ, **environment}, stderr=log, stdout=log
            )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not port_file.exists():
            assert self._process.poll() is None, self.log()
            assert time.monotonic() < deadline, self.log()
            time.sleep(0.05)
        self._channel = grpc.insecure_channel(json.loads(port_file.read_text())["address"])
        self.inference = InferenceServiceStub(self._channel)
        return self

    def __exit__(self, *_: object) -> None:
        self._channel.close()
        assert self._process is not None
        self._process.terminate()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def log(self) -> str:
        return (self._folder / "inference.log").read_text(errors="replace")

    def register(self, manifest: bytes, model: bytes) -> str:
        """The id of a new version."""
        header = messages.UploadPackageHeader(project_id=PROJECT, manifest=manifest)
        parts = [messages.UploadPackageRequest(header=header), messages.UploadPackageRequest(chunk=model)]
        digest = self.inference.UploadPackage(iter(parts), timeout=60).package_digest
        request = messages.RegisterModelRequest(
            request_id=uuid.uuid4().hex,
            project_id=PROJECT,
            role=messages.MODEL_ROLE_SUSTAINER,
            package_digest=digest,
            organs=ORGANS,
        )
        return self.inference.RegisterModel(request, timeout=120).model.model_version_id

    def activate(self, version: str, *, instead_of: str = "") -> None:
        request = messages.ActivateModelRequest(
            request_id=uuid.uuid4().hex, project_id=PROJECT, model_version_id=version, expected_current=instead_of
        )
        self.inference.ActivateModel(request, timeout=120)

    def segment(self, file: Path, *, timeout_s: float = 120.0) -> Segmented:
        """With the active version."""
        data = file.read_bytes()
        header = messages.SegmentHeader(
            project_id=PROJECT,
            model=messages.ModelSelector(active=True),
            format=common.FILE_FORMAT_NIFTI,
            sha256=hashlib.sha256(data).hexdigest(),
        )
        parts = [messages.SegmentRequest(header=header), messages.SegmentRequest(chunk=data)]
        answers = list(self.inference.Segment(iter(parts), timeout=timeout_s))
        result = next(answer.result for answer in answers if answer.HasField("result"))
        mask = b"".join(answer.chunk for answer in answers if answer.WhichOneof("part") == "chunk")
        return Segmented(result.model_version_id, voxels_of(mask, self._folder))


def voxels_of(data: bytes, folder: Path) -> NDArray[np.uint8]:
    """Of a compressed NIfTI file."""
    path = folder / f"{uuid.uuid4().hex}.nii"
    path.write_bytes(gzip.decompress(data))
    try:
        return sitk.GetArrayFromImage(sitk.ReadImage(str(path))).astype(np.uint8)
    finally:
        path.unlink()
