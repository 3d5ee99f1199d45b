"""Files that are made to do harm: each gets a typed error, the service lives on, and nothing is left behind."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from hostile_files import HOSTILE_DICOM, HOSTILE_METAIMAGE, HOSTILE_NIFTI, HOSTILE_NRRD, Made
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.inference.v1 import volumes_pb2 as messages
from rekindle.api.inference.v1.volumes_pb2_grpc import VolumeServiceStub
from rekindle.status import error_from_rpc
from rekindle_inference.service import Service, build_service
from rekindle_inference.settings import Settings
from rekindle_servicekit.database import read

PROJECT = "project-a"
TABLES = ("volumes", "volume_sources", "receipts", "requests")


class Target:
    """One service that all of them are thrown at."""

    def __init__(self, service: Service, folder: Path) -> None:
        self.service, self.folder = service, folder
        self.volumes = VolumeServiceStub(grpc.insecure_channel(service.server.address))

    def refusal(self, data: bytes, format: Any) -> Any:
        before = self.state()
        header = messages.UploadVolumeHeader(
            request_id=uuid.uuid4().hex,
            project_id=PROJECT,
            kind=common.VOLUME_KIND_IMAGE,
            format=format,
            modality=common.MODALITY_CT,
            sha256=hashlib.sha256(data).hexdigest(),
        )
        chunks = [messages.UploadVolumeRequest(chunk=data[at : at + 65536]) for at in range(0, len(data), 65536)]
        with pytest.raises(grpc.RpcError) as caught:
            self.volumes.UploadVolume(iter([messages.UploadVolumeRequest(header=header), *chunks]), timeout=60)
        assert before == self.state()
        alive = messages.BatchGetVolumesRequest(project_id=PROJECT)
        assert [] == list(self.volumes.BatchGetVolumes(alive, timeout=10).volumes)
        assert grpc.StatusCode.INVALID_ARGUMENT == caught.value.code()
        return error_from_rpc(caught.value)

    def state(self) -> tuple[int, list[Path], list[Path]]:
        """Rows, objects, temporary files."""
        with read(self.service.state.engine) as connection:
            rows = sum(connection.exec_driver_sql(f"SELECT count(*) FROM {t}").scalar() for t in TABLES)
        objects = [path for path in (self.folder / "objects").rglob("*") if path.is_file()]
        return rows, objects, self.service.incoming.files()


@pytest.fixture(scope="module")
def target(forkserver: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    folder = tmp_path_factory.mktemp("hostile")
    settings = Settings(
        address="127.0.0.1:0",
        health_address=None,
        database_url=f"sqlite:///{folder}/state.sqlite3",
        objects_directory=folder / "objects",
        temporary_directory=folder / "incoming",
        max_file_bytes=2_000_000,
        max_voxels=2**22,
    )
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    async def start() -> Service:
        service = build_service(settings)
        await service.server.start()
        return service

    service = asyncio.run_coroutine_threadsafe(start(), loop).result(60)
    yield Target(service, folder)
    asyncio.run_coroutine_threadsafe(service.server.stop(0), loop).result(60)
    service.close()
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


def check(target: Target, made: Made, format: Any) -> None:
    name, make, reasons = made
    error = target.refusal(make(), format)
    assert error.reason in reasons, f"{name}: {error.reason}: {error.message}"
    for secret in ("/etc/", "passwd", "1.2.3", "Canary", "CANARY", "<script>", "$(id)", str(target.folder)):
        assert secret not in error.message


def named(cases: list[Made]) -> Any:
    return pytest.mark.parametrize("made", cases, ids=[name for name, _, _ in cases])


@named(HOSTILE_DICOM)
def test_hostile_dicom_is_refused(target: Target, made: Made) -> None:
    """Preambles, lengths, bombs, streams, identifiers and archives that are not what they seem."""
    check(target, made, common.FILE_FORMAT_DICOM)


@named(HOSTILE_NIFTI)
def test_hostile_nifti_is_refused(target: Target, made: Made) -> None:
    """Headers that claim the impossible, and a bomb."""
    check(target, made, common.FILE_FORMAT_NIFTI)


@named(HOSTILE_NRRD)
def test_hostile_nrrd_is_refused(target: Target, made: Made) -> None:
    """Headers that point elsewhere, lie about sizes, or write numbers in another way."""
    check(target, made, common.FILE_FORMAT_NRRD)


@named(HOSTILE_METAIMAGE)
def test_hostile_metaimage_is_refused(target: Target, made: Made) -> None:
    """Headers that point elsewhere, and a stream that is longer than it says."""
    check(target, made, common.FILE_FORMAT_METAIMAGE)
