"""A private Triton without a GPU."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path
from urllib.request import urlopen

from servers.minio import ACCESS_KEY, SECRET_KEY
from servers.process import ServerProcess, free_port
from servers.tools import ROOT, TOOLS, MissingServer


class TritonServer(ServerProcess):
    """Loads what it is told to from `repository`: a folder, or s3://http://host:port/bucket/prefix.

    With an `access_key` (key=value) it restricts all calls but those of inference to who knows it. Graphs run on
    `threads` threads. `tls` is its certificate, its key and the authority of its clients.
    """

    name = "triton"

    def __init__(
        self,
        folder: Path,
        *,
        repository: str | None = None,
        access_key: str = "",
        threads: int = 1,
        tls: tuple[Path, Path, Path] | None = None,
    ) -> None:
        super().__init__(folder)
        self.repository = repository or str(folder / "repository")
        self._access_key = access_key
        self._threads = threads
        self._tls = tls
        #: Times that it was started.
        self.starts = 0
        self._http, self._metrics = free_port(), free_port()
        if "://" not in self.repository:
            Path(self.repository).mkdir(parents=True, exist_ok=True)

    def start(self) -> None:
        super().start()
        self.starts += 1

    def command(self) -> list[str]:
        tool = installed_triton()
        restricted = f"model-repository,model-config,shared-memory:{self._access_key}"
        return [
            *(str(tool / "tritonserver"), f"--model-repository={self.repository}", "--model-control-mode=explicit"),
            *("--backend-directory=" + str(tool / "backends"), "--log-verbose=0", "--exit-timeout-secs=5"),
            *("--http-address=127.0.0.1", f"--http-port={self._http}"),
            *("--grpc-address=127.0.0.1", f"--grpc-port={self.port}"),
            *("--metrics-address=127.0.0.1", f"--metrics-port={self._metrics}"),
            *([f"--grpc-restricted-protocol={restricted}"] if self._access_key else []),
            *self._tls_options(),
        ]

    def environment(self) -> dict[str, str]:
        tool = installed_triton()
        return {
            # The first python in PATH is the one whose packages its Python backend sees.
            "PATH": f"{tool / 'venv' / 'bin'}:/usr/bin:/bin",
            "LD_LIBRARY_PATH": str(tool / "libraries"),
            "REKINDLE_TRITON_THREADS": str(self._threads),
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def is_ready(self) -> bool:
        with urlopen(f"http://127.0.0.1:{self._http}/v2/health/ready", timeout=2) as answer:
            return answer.status == 200

    def _tls_options(self) -> list[str]:
        if self._tls is None:
            return []
        certificate, key, authority = self._tls
        return [
            *("--grpc-use-ssl=1", "--grpc-use-ssl-mutual=1", f"--grpc-server-cert={certificate}"),
            *(f"--grpc-server-key={key}", f"--grpc-root-cert={authority}"),
        ]

    @property
    def address(self) -> str:
        """host:port of its gRPC service."""
        return f"127.0.0.1:{self.port}"


@cache
def installed_triton() -> Path:
    """The folder of the server and its backends, fetched where it is not there yet; MissingServer."""
    done = subprocess.run([ROOT / "tools" / "install-triton"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        raise MissingServer(f"Triton cannot be installed:\n{done.stderr.strip() or done.stdout.strip()}")
    return TOOLS / "triton"
