"""PostgreSQL, MinIO and Triton for the three services: started below a folder, and the settings that lead to them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from servers.postgresql import PostgresqlServer
from servers.triton import TritonServer


@dataclass(frozen=True)
class RealServers:
    """What runs, and the environment variables that lead the services of one installation to it."""

    triton: TritonServer
    environment: Mapping[str, str]


@contextmanager
def real_servers(folder: Path) -> Iterator[RealServers]:
    """All of them, while inside."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        PostgresqlServer(folder / "postgresql") as postgresql,
        TritonServer(folder / "triton", threads=os.cpu_count() or 1) as triton,
    ):
        databases = {
            f"REKINDLE_{service}_DATABASE_URL": postgresql.create_database()
            for service in ("SCHEDULER", "INFERENCE", "TRAINER")
        }
        environment = {
            **databases,
            "REKINDLE_INFERENCE_TRITON_ADDRESS": triton.address,
            "REKINDLE_INFERENCE_TRITON_REPOSITORY": triton.repository,
        }
        yield RealServers(triton, environment)
