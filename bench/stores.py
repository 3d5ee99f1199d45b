"""Production stores: volumes through MinIO beside plain HTTP to the same MinIO, leases on PostgreSQL, starts."""

from __future__ import annotations

import sqlite3
import sys
import time
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from uuid import uuid4

from rekindle_scheduler.domain.ids import ProjectId
from rekindle_scheduler.state import State, open_state
from rekindle_scheduler.usecases.leases import LeaseDetails, lease_next_case
from rekindle_servicekit.principal import Principal
from rekindle_servicekit.s3 import S3Objects

from bench.measure import Figure, Options, Row, alternate, percentile
from bench.transfer import MB, download, nifti, running_service, upload

# The servers that the tests start.
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from leasing import lease_all
from many_cases import PROJECT, fill
from servers.minio import ACCESS_KEY, SECRET_KEY, MinioServer
from servers.postgresql import PostgresqlServer
from servers.process import ServerProcess
from servers.s3 import options_of
from servers.seaweedfs import SeaweedfsServer

FEW = 1_000
ADDRESS_S = 600.0


def measure(options: Options) -> list[Row]:
    with ExitStack() as stack:
        postgresql = PostgresqlServer(options.folder / "postgresql")
        minio, seaweedfs = MinioServer(options.folder / "minio"), SeaweedfsServer(options.folder / "seaweedfs")
        for server in (postgresql, minio, seaweedfs):
            stack.callback(server.stop)
        starts = {server.name: _start(server, 1 if options.quick else 3) for server in (postgresql, minio, seaweedfs)}
        rows = _transfers(options, minio)
        rows += _leases(postgresql, 100_000 if options.quick else 1_000_000, 200 if options.quick else 2_000)
        opened = _start_sqlite(options.folder, len(starts["postgresql"]))
    return [
        *rows,
        _ready("PostgreSQL started and ready", starts["postgresql"], opened, "a SQLite file, opened"),
        _ready("MinIO started and ready", starts["minio"], starts["seaweedfs"], "SeaweedFS"),
    ]


def _transfers(options: Options, minio: MinioServer) -> list[Row]:
    """New files up through the service and as they are to the store; then one down again."""
    slices, repeats = (20, 1) if options.quick else (100, 5)
    files = [nifti(options.folder, slices, seed) for seed in range(repeats + 2)]
    bucket = minio.make_bucket("bench")
    store = S3Objects(options_of(minio, bucket))
    settings = {
        "OBJECTS_URL": f"s3://{bucket}/bench", "OBJECTS_ENDPOINT": minio.url,
        "OBJECTS_ACCESS_KEY": ACCESS_KEY, "OBJECTS_SECRET_KEY": SECRET_KEY,
    }  # fmt: skip
    ours, theirs = iter(files), iter(files)
    with running_service(options.folder, **settings) as stub:
        sent = alternate(repeats, lambda: upload(stub, next(ours)), lambda: _put(store, next(theirs)))
        volume_id = upload(stub, next(ours))
        data = download(stub, volume_id)
        key = _put(store, data)
        fetched = alternate(repeats, lambda: download(stub, volume_id), lambda: _get(store, key))
    return [
        Row(
            what=what, unit="MB/s", more_is_better=True, rekindle=Figure.rate(size / MB, seconds[0]),
            instead=instead, other=Figure.rate(size / MB, seconds[1]),
        )
        for what, size, seconds, instead in (
            (f"upload, converted, MinIO below, {len(files[0]) / MB:.0f} MB", len(files[0]), sent, "HTTP PUT"),
            (f"download, written anew, MinIO below, {len(data) / MB:.0f} MB", len(data), fetched, "HTTP GET"),
        )
    ]  # fmt: skip


def _put(store: S3Objects, data: bytes) -> str:
    key = f"plain/{uuid4()}"
    address = store.presign_put(key, ADDRESS_S)
    assert address is not None
    with urllib.request.urlopen(urllib.request.Request(address, data=data, method="PUT")) as answer:
        answer.read()
    return key


def _get(store: S3Objects, key: str) -> bytes:
    address = store.presign_get(key, ADDRESS_S)
    assert address is not None
    with urllib.request.urlopen(address) as answer:
        return answer.read()


def _leases(postgresql: PostgresqlServer, many: int, turns: int) -> list[Row]:
    """One lease is one transaction, as the service's call makes it; the disk is waited for."""
    stores = {count: open_state(postgresql.create_database()) for count in (many, FEW)}
    projects = {count: fill(store, cases=count, selected=count) for count, store in stores.items()}
    turns = min(turns, FEW // 4)
    alone = alternate(turns, *(lambda s=stores[c], p=projects[c]: _lease(s, p) for c in (many, FEW)))
    rates = {count: _rate(stores[count], people=8, cases=turns) for count in (many, FEW)}
    for store in stores.values():
        store.close()
    latencies = [
        Row(
            what=f"next case leased, PostgreSQL, {many:,} cases, p{percent}", unit="ms", more_is_better=False,
            rekindle=Figure.of([1e3 * percentile(alone[0], percent)]),
            instead=f"with {FEW:,} cases", other=Figure.of([1e3 * percentile(alone[1], percent)]),
        )
        for percent in (50, 99)
    ]  # fmt: skip
    return [
        *latencies,
        Row(
            what=f"leases by 8 at once, PostgreSQL, {many:,} cases", unit="1/s", more_is_better=True,
            rekindle=Figure.of([rates[many]]), instead=f"with {FEW:,} cases", other=Figure.of([rates[FEW]]),
        ),
    ]  # fmt: skip


def _lease(store: State, project_id: ProjectId) -> None:
    who = Principal(issuer="bench", subject="alone", display_name="")
    with store.write() as uow:
        if not isinstance(lease_next_case(uow, who, project_id, None), LeaseDetails):
            raise RuntimeError("there is no case left")


def _rate(store: State, *, people: int, cases: int) -> float:
    began = time.monotonic()
    return len(lease_all(store, PROJECT, people=people, cases=cases)) / (time.monotonic() - began)


def _start(server: ServerProcess, repeats: int) -> list[float]:
    """Seconds to ready; the last start is left running."""
    seconds: list[float] = []
    for number in range(repeats):
        if number:
            server.stop()
        server.start()
        seconds.append(server.seconds_to_ready)
    return seconds


def _start_sqlite(folder: Path, repeats: int) -> list[float]:
    seconds: list[float] = []
    for number in range(repeats):
        began = time.monotonic()
        sqlite3.connect(folder / f"{number}.sqlite3").execute("CREATE TABLE t (n)").connection.close()
        seconds.append(time.monotonic() - began)
    return seconds


def _ready(what: str, ours: list[float], theirs: list[float], instead: str) -> Row:
    return Row(
        what=what, unit="s", more_is_better=False,
        rekindle=Figure.of(ours), instead=instead, other=Figure.of(theirs),
    )  # fmt: skip
