"""A private MinIO."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path
from urllib.request import urlopen

import urllib3
from minio import Minio

from servers.process import ServerProcess
from servers.tools import installed

ACCESS_KEY = "rekindle-test"
SECRET_KEY = "only-for-tests-too"
KMS_KEY = "rekindle-test-key"


class MinioServer(ServerProcess):
    """One disk below `folder`. With `certificates` (public.crt and private.key in a folder) it speaks TLS.

    It can encrypt what it stores: a key named KMS_KEY is built in.
    """

    name = "minio"

    def __init__(self, folder: Path, *, data: Path | None = None, certificates: Path | None = None) -> None:
        super().__init__(folder)
        self._data = data or folder / "data"
        self._certificates = certificates

    def command(self) -> list[str]:
        certificates = self._certificates or self.folder / "no-certificates"
        return [
            *(str(installed("minio") / "minio"), "server", "--quiet", "--certs-dir", str(certificates)),
            *("--address", f"127.0.0.1:{self.port}", str(self._data)),
        ]

    def environment(self) -> Mapping[str, str]:
        return {
            "MINIO_ROOT_USER": ACCESS_KEY,
            "MINIO_ROOT_PASSWORD": SECRET_KEY,
            "MINIO_UPDATE": "off",
            "MINIO_BROWSER": "off",
            "MINIO_KMS_SECRET_KEY": f"{KMS_KEY}:{base64.b64encode(bytes(32)).decode()}",
            "HOME": str(self.folder),
        }

    def is_ready(self) -> bool:
        if self._certificates is None:
            with urlopen(f"http://{self.endpoint}/minio/health/ready", timeout=2) as answer:
                return answer.status == 200
        pool = urllib3.PoolManager(cert_reqs="CERT_REQUIRED", ca_certs=str(self._certificates / "CAs" / "ca.crt"))
        try:
            return pool.request("GET", f"https://{self.endpoint}/minio/health/ready", retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    @property
    def endpoint(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'http' if self._certificates is None else 'https'}://{self.endpoint}"

    def client(self) -> Minio:
        """Of the maker's own, for tests that look behind the adapter."""
        return Minio(self.endpoint, ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")

    def make_bucket(self, name: str) -> str:
        """Its name, once it is there."""
        self.client().make_bucket(name)
        return name
