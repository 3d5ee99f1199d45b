"""PostgreSQL, MinIO and Triton for the three services: started below a folder, and the settings that lead to them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from rekindle_inference.adapters.triton.config import ModelOptions
from rekindle_inference.adapters.triton.repository import ModelRepository
from rekindle_servicekit.objects import PrefixedObjects
from rekindle_servicekit.s3 import S3Objects
from servers.minio import ACCESS_KEY, SECRET_KEY, MinioServer
from servers.postgresql import PostgresqlServer
from servers.s3 import options_of
from servers.triton import TritonServer

BUCKET = "rekindle"


@dataclass(frozen=True)
class RealServers:
    """What runs, and the environment variables that lead the services of one installation to it."""

    triton: TritonServer
    environment: Mapping[str, str]


@contextmanager
def real_servers(folder: Path) -> Iterator[RealServers]:
    """All of them, while inside."""
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        postgresql = stack.enter_context(PostgresqlServer(folder / "postgresql"))
        minio = stack.enter_context(MinioServer(folder / "minio"))
        minio.make_bucket(BUCKET)
        # The service does this too, but here Triton starts before it, and only once.
        bucket = S3Objects(options_of(minio, BUCKET))
        ModelRepository(bucket, PrefixedObjects(bucket, "triton"), ModelOptions()).prepare()
        models, threads = f"s3://{minio.url}/{BUCKET}/triton", os.cpu_count() or 1
        triton = stack.enter_context(TritonServer(folder / "triton", repository=models, threads=threads))
        databases = {
            f"REKINDLE_{service}_DATABASE_URL": postgresql.create_database()
            for service in ("SCHEDULER", "INFERENCE", "TRAINER")
        }
        store = {
            f"REKINDLE_{service}_OBJECTS_{name}": value
            for service in ("INFERENCE", "TRAINER")
            for name, value in (
                ("URL", f"s3://{BUCKET}"),
                ("ENDPOINT", minio.url),
                ("ACCESS_KEY", ACCESS_KEY),
                ("SECRET_KEY", SECRET_KEY),
            )
        }
        environment = {**databases, **store, "REKINDLE_INFERENCE_TRITON_ADDRESS": triton.address}
        yield RealServers(triton, environment)
