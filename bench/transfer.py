"""Transfer: a volume to and from the inference service beside the same bytes over plain HTTP."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
import zlib
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

import grpc
import SimpleITK as sitk
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import volumes_pb2 as messages
from rekindle.api.inference.v1.volumes_pb2_grpc import VolumeServiceStub
from rekindle.volumes import CHUNK_BYTES, collect_download, upload_parts

from bench.http_store import HttpStore
from bench.measure import Figure, Options, Row, alternate
from bench.phantom import abdomen

MB = 1e6
PROJECT = "bench"
START_S, CALL_S = 60.0, 300.0


def measure(options: Options) -> list[Row]:
    """Uploads of an uncompressed file, a new one each time, and downloads, which are compressed files."""
    slices, repeats = (20, 1) if options.quick else (100, 3)
    # Equal files would be answered from what is stored.
    files = iter([nifti(options.folder, slices, seed) for seed in range(2 * repeats + 3)])
    kept = options.folder / "http"
    kept.mkdir()
    with running_service(options.folder) as stub, HttpStore(kept) as store:
        up, in_pieces = ([next(files) for _ in range(repeats + 1)] for _ in range(2))
        ours, pieces, theirs = iter(up), iter(in_pieces), iter(up)
        sent = alternate(
            repeats,
            lambda: upload(stub, next(ours)),
            lambda: _upload_in_pieces(stub, next(pieces)),
            lambda: store.put("volume", next(theirs)),
        )
        volume_id = upload(stub, next(files))
        data = download(stub, volume_id)
        store.put("download", data)
        digest = hashlib.sha256(data).hexdigest()
        fetched = alternate(repeats, lambda: download(stub, volume_id), lambda: store.get("download", digest))
    sizes = f"{len(up[0]) / MB:.0f} MB .nii", f"{len(data) / MB:.0f} MB .nii.gz"
    return [
        Row(
            what=what, unit="MB/s", more_is_better=True, rekindle=Figure.rate(size, seconds[0]),
            instead=instead, other=Figure.rate(size, seconds[1]),
        )
        for what, size, seconds, instead in (
            (f"upload, checked and converted, {sizes[0]}", len(up[0]) / MB, sent[::2], "HTTP PUT"),
            (f"the same in resumable pieces, {sizes[0]}", len(up[0]) / MB, sent[1:], "HTTP PUT"),
            (f"the same in resumable pieces, {sizes[0]}", len(up[0]) / MB, sent[1::-1], "one stream"),
            (f"download, written anew, {sizes[1]}", len(data) / MB, fetched, "HTTP GET"),
        )
    ]  # fmt: skip


def nifti(folder: Path, slices: int, seed: int) -> bytes:
    image, _ = abdomen(slices, 512, in_plane_mm=0.75, slice_mm=3.0, seed=seed)
    path = folder / "volume.nii"
    sitk.WriteImage(image.to_sitk(), str(path))
    return path.read_bytes()


def upload(stub: VolumeServiceStub, data: bytes) -> str:
    header = messages.UploadVolumeHeader(
        request_id=str(uuid4()), project_id=PROJECT,
        kind=common.VOLUME_KIND_IMAGE, format=common.FILE_FORMAT_NIFTI,
        sha256=hashlib.sha256(data).hexdigest(), modality=common.MODALITY_CT,
    )  # fmt: skip
    return stub.UploadVolume(upload_parts(header, data), timeout=CALL_S).volume.volume_id


def _upload_in_pieces(stub: VolumeServiceStub, data: bytes) -> str:
    header = messages.UploadVolumeHeader(
        project_id=PROJECT, kind=common.VOLUME_KIND_IMAGE, format=common.FILE_FORMAT_NIFTI,
        sha256=hashlib.sha256(data).hexdigest(), modality=common.MODALITY_CT,
    )  # fmt: skip
    request = messages.CreateUploadRequest(request_id=str(uuid4()), header=header, size_bytes=len(data))
    upload_id = stub.CreateUpload(request, timeout=CALL_S).upload.upload_id
    names = {"project_id": PROJECT, "upload_id": upload_id}
    for offset in range(0, len(data), CHUNK_BYTES):
        chunk = data[offset : offset + CHUNK_BYTES]
        stub.PutChunk(
            messages.PutChunkRequest(**names, offset=offset, data=chunk, crc32=zlib.crc32(chunk)), timeout=CALL_S
        )
    end = messages.FinalizeUploadRequest(request_id=str(uuid4()), **names)
    return stub.FinalizeUpload(end, timeout=CALL_S).volume.volume_id


def download(stub: VolumeServiceStub, volume_id: str) -> bytes:
    request = messages.DownloadVolumeRequest(project_id=PROJECT, volume_id=volume_id)
    return collect_download(stub.DownloadVolume(request, timeout=CALL_S)).data


@contextmanager
def running_service(folder: Path, **more: str) -> Generator[VolumeServiceStub]:
    """The inference service as a process on loopback, with more settings than the usual."""
    port_file = folder / "port.json"
    settings = {
        "ADDRESS": "127.0.0.1:0", "HEALTH_ADDRESS": "127.0.0.1:0", "PORT_FILE": port_file,
        "DATABASE_URL": f"sqlite:///{folder / 'inference.sqlite3'}",
        "OBJECTS_DIRECTORY": folder / "objects", "TEMPORARY_DIRECTORY": folder / "incoming",
    }  # fmt: skip
    own = {f"REKINDLE_INFERENCE_{name}": str(value) for name, value in {**settings, **more}.items()}
    log = folder / "inference.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "rekindle_inference"], env={**os.environ, **own}, stdout=stream, stderr=stream
        )
    try:
        address = _address(process, port_file, log)
        with grpc.insecure_channel(address) as channel:
            yield VolumeServiceStub(channel)
    finally:
        process.terminate()
        process.wait()


def _address(process: subprocess.Popen[bytes], port_file: Path, log: Path) -> str:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        if port_file.exists():
            return str(json.loads(port_file.read_text())["address"])
        time.sleep(0.05)
    raise RuntimeError(f"the inference service did not start:\n{log.read_text(errors='replace')[-2000:]}")
