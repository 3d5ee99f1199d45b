"""A private SeaweedFS that speaks S3."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import urlopen

from minio import Minio

from servers.minio import ACCESS_KEY, SECRET_KEY
from servers.process import ServerProcess, free_port
from servers.tools import installed


class SeaweedfsServer(ServerProcess):
    """Master, volume server, filer and S3 gateway in one process."""

    name = "seaweedfs"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._inner = [free_port() for _ in range(6)]

    def command(self) -> list[str]:
        data, config = self.folder / "data", self.folder / "s3.json"
        data.mkdir(exist_ok=True)
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        credentials = [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}]
        identity = {"name": "test", "credentials": credentials, "actions": actions}
        config.write_text(json.dumps({"identities": [identity]}))
        master, volume, filer, master_grpc, volume_grpc, filer_grpc = self._inner
        return [
            *(str(installed("seaweedfs") / "bin" / "weed"), "-logtostderr=true", "server"),
            *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={data}"),
            *(f"-master.port={master}", f"-master.port.grpc={master_grpc}", "-master.volumeSizeLimitMB=64"),
            *(f"-volume.port={volume}", f"-volume.port.grpc={volume_grpc}", "-volume.max=5000"),
            *("-filer", f"-filer.port={filer}", f"-filer.port.grpc={filer_grpc}"),
            *("-s3", f"-s3.port={self.port}", f"-s3.port.grpc={free_port()}", f"-s3.config={config}"),
            *("-s3.port.iceberg=0", "-s3.port.lance=0"),
        ]

    def stop(self) -> None:
        # In an orderly way it takes ten seconds and more.
        self.kill()

    def is_ready(self) -> bool:
        # The gateway answers before there is room to store anything in.
        try:
            with urlopen(f"http://{self.endpoint}/", timeout=2):
                pass
        except HTTPError:
            pass
        with urlopen(f"http://127.0.0.1:{self._inner[0]}/dir/assign", timeout=2) as answer:
            return "fid" in json.loads(answer.read())

    @property
    def endpoint(self) -> str:
        """host:port."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.endpoint}"

    def client(self) -> Minio:
        """For tests that look behind the adapter."""
        return Minio(self.endpoint, ACCESS_KEY, SECRET_KEY, secure=False, region="us-east-1")

    def make_bucket(self, name: str) -> str:
        """Its name, once it is there."""
        self.client().make_bucket(name)
        return name
