"""A private MinIO."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from pathlib import Path

import urllib3
from minio import Minio
from minio.error import MinioException

from servers.process import ServerProcess
from servers.tools import installed

ACCESS_KEY = "rekindle-test"
SECRET_KEY = "only-for-tests-too"
KMS_KEY = "rekindle-test-key"


class MinioServer(ServerProcess):
    """One disk below `folder`. With `certificates` (public.crt and private.key in a folder) it speaks TLS.

    With `disk_bytes` its disk is as small as that, in memory, and lost when it ends. It can encrypt what it
    stores: a key named KMS_KEY is built in.
    """

    name = "minio"

    def __init__(self, folder: Path, *, disk_bytes: int | None = None, certificates: Path | None = None) -> None:
        super().__init__(folder)
        self._data = folder / "data"
        self._disk_bytes = disk_bytes
        self._certificates = certificates

    def command(self) -> list[str]:
        certificates = self._certificates or self.folder / "no-certificates"
        return [
            *self._on_a_small_disk(),
            *(str(installed("minio") / "minio"), "server", "--quiet", "--certs-dir", str(certificates)),
            *("--address", f"127.0.0.1:{self.port}", str(self._data)),
        ]

    def _on_a_small_disk(self) -> list[str]:
        if self._disk_bytes is None:
            return []
        self._data.mkdir(exist_ok=True)
        mount = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && shift 2 && exec "$@"'
        # The mount is seen by this process alone and goes with it; who is not root becomes so in a world of its own.
        own_world = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
        return [*own_world, "sh", "-c", mount, "sh", str(self._disk_bytes), str(self._data)]

    def environment(self) -> Mapping[str, str]:
        return {
            "MINIO_ROOT_USER": ACCESS_KEY,
            "MINIO_ROOT_PASSWORD": SECRET_KEY,
            "MINIO_UPDATE": "off",
            "MINIO_BROWSER": "off",
            "MINIO_KMS_SECRET_KEY": f"{KMS_KEY}:{base64.b64encode(bytes(32)).decode()}",
            "HOME": str(self.folder),
        }

    @property
    def disk(self) -> Path:
        """Its disk as it sees it, for tests that fill it."""
        return Path(f"/proc/{self.pid}/root") / self._data.relative_to("/")

    def is_ready(self) -> bool:
        # Its health check says yes before it takes orders.
        try:
            self.client(retries=False).list_buckets()
        except (urllib3.exceptions.HTTPError, MinioException):
            return False
        return True

    @property
    def endpoint(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'http' if self._certificates is None else 'https'}://{self.endpoint}"

    def client(self, *, retries: bool = True) -> Minio:
        """The maker's own, for tests that look behind the adapter."""
        trusted = None if self._certificates is None else str(self._certificates / "CAs" / "ca.crt")
        # It may ask to be left alone for minutes.
        patience = urllib3.Retry(2, respect_retry_after_header=False) if retries else False
        pool = urllib3.PoolManager(timeout=10, retries=patience, ca_certs=trusted)
        secure = self._certificates is not None
        return Minio(self.endpoint, ACCESS_KEY, SECRET_KEY, secure=secure, region="us-east-1", http_client=pool)

    def make_bucket(self, name: str) -> str:
        """Its name, once it is there."""
        self.client().make_bucket(name)
        return name
