"""Releases of the services that run side by side on one database and one object store, behind fixed addresses."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from rekindle._call import Retry
from rekindle.client import Client
from servers.postgresql import PostgresqlServer
from servers.proxy import Proxy

ROOT = Path(__file__).parents[2]
SERVICES = ("inference", "trainer", "scheduler")
_SOURCES = ("sdk", "libs/servicekit", "libs/imaging", *(f"services/{name}" for name in SERVICES))
_START_TIMEOUT_S = 90.0

_NEXT_MIGRATION = '''"""What the next release adds."""

import sqlalchemy as sa
from alembic import op

revision, down_revision, branch_labels, depends_on = "9999", "{head}", None, None


def upgrade() -> None:
    op.create_table("of_the_next_release", sa.Column("id", sa.Text, primary_key=True))
    op.add_column("{table}", sa.Column("of_the_next_release", sa.Text, server_default="fair"))
'''
_MAIN_TABLES = {"scheduler": "cases", "inference": "volumes", "trainer": "runs"}


@dataclass(frozen=True)
class Release:
    """Sources of the services and of what they stand on."""

    name: str
    folders: tuple[Path, ...]

    def environment(self) -> dict[str, str]:
        """Without settings of any service; its sources come first."""
        own = {key: value for key, value in os.environ.items() if not key.startswith("REKINDLE_")}
        return {**own, "PYTHONPATH": os.pathsep.join(map(str, self.folders))}

    def check(self) -> None:
        """It is this release that runs under `environment`, and not the one that is installed."""
        program = "import rekindle, rekindle_servicekit, rekindle_scheduler as s; print(rekindle.__file__, s.__file__)"
        done = subprocess.run(
            [sys.executable, "-c", program], env=self.environment(), capture_output=True, text=True, check=True
        )
        for path in done.stdout.split():
            assert any(Path(path).is_relative_to(folder) for folder in self.folders), (self.name, path)


def present() -> Release:
    """The one that is being tested."""
    return Release("present", tuple(ROOT / source / "src" for source in _SOURCES))


def kept(version: str, folder: Path) -> Release:
    """One of compat/, unpacked."""
    with zipfile.ZipFile(ROOT / "compat" / version / "services.zip") as archive:
        archive.extractall(folder)
    return Release(version, (folder,))


def following(folder: Path) -> Release:
    """The present one with one more migration in each service, and with records that have one more field."""
    for source in _SOURCES:
        shutil.copytree(ROOT / source / "src", folder, dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
    for service in SERVICES:
        versions = folder / f"rekindle_{service}/migrations/versions"
        head = max(path.name for path in versions.glob("0*.py"))[:4]
        content = _NEXT_MIGRATION.format(head=head, table=_MAIN_TABLES[service])
        (versions / "9999_of_the_next_release.py").write_text(content)
    for path, line in (
        ("rekindle_scheduler/domain/policy.py", "    candidate_pool: int = 0\n"),
        ("rekindle_scheduler/domain/records.py", "    run: TrainingRun | None = None\n"),
    ):
        text = (folder / path).read_text()
        assert line in text, f"{path} has changed: find another place for the next release's field"
        (folder / path).write_text(text.replace(line, f'{line}    weather: str = "fair"\n', 1))
    return Release("next", (folder,))


@dataclass
class Site:
    """One installation: three databases, a folder of objects, three addresses; which release serves may change."""

    folder: Path
    postgresql: PostgresqlServer
    databases: dict[str, str] = field(default_factory=dict)
    fronts: dict[str, Proxy] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _started: int = 0

    def __post_init__(self) -> None:
        for service in SERVICES:
            self.databases[service] = self.postgresql.create_database()
            self.fronts[service] = Proxy(_unused_port())

    def client(self) -> Client:
        """One that waits out a restart."""
        addresses = {name: f"127.0.0.1:{front.port}" for name, front in self.fronts.items()}
        return Client.connect(
            addresses["scheduler"],
            inference=addresses["inference"],
            trainer=addresses["trainer"],
            retry=Retry(attempts=60, max_wait_s=1.0),
        )

    def migrate(self, release: Release) -> None:
        """As a step of a deployment, before the release is started."""
        for service in SERVICES:
            done = subprocess.run(
                [sys.executable, "-m", f"rekindle_{service}", "migrate"],
                env={**release.environment(), f"REKINDLE_{service.upper()}_DATABASE_URL": self.databases[service]},
                cwd=self.folder,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr

    def serve(self, release: Release, *, beside: bool = True, **settings: str) -> None:
        """Have this release serve instead of the one before: started beside it, or once that has ended."""
        for service in SERVICES:
            before = self.running.pop(service, None)
            if before is not None and not beside:
                _end(before)
            process, port = self.start(release, service, **settings)
            self.running[service] = process
            self.fronts[service].lead_to(port)
            if before is not None and beside:
                _end(before)

    def start(self, release: Release, service: str, **settings: str) -> tuple[subprocess.Popen[bytes], int]:
        """A process, and its port once it listens; AssertionError with the end of its log where it does not."""
        self._started += 1
        name = f"{self._started:02}-{service}-{release.name}"
        port_file, log = self.folder / f"{name}.json", self.folder / f"{name}.log"
        values = {
            "ADDRESS": "127.0.0.1:0",
            "HEALTH_ADDRESS": "",
            "PORT_FILE": str(port_file),
            "DATABASE_URL": self.databases[service],
            **self._settings_of(service),
            **settings,
        }
        environment = {f"REKINDLE_{service.upper()}_{key}": value for key, value in values.items()}
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", f"rekindle_{service}"],
                env={**release.environment(), **environment},
                cwd=self.folder,
                stderr=output,
            )
        deadline = time.monotonic() + _START_TIMEOUT_S
        try:
            while not port_file.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"{name} does not start: {log.read_text(errors='replace')[-3000:]}")
                time.sleep(0.05)
        except BaseException:
            process.kill()
            process.wait()
            raise
        return process, int(json.loads(port_file.read_text())["address"].rpartition(":")[2])

    def stop(self) -> None:
        for process in self.running.values():
            _end(process)
        for front in self.fronts.values():
            front.close()

    def _settings_of(self, service: str) -> dict[str, str]:
        if service == "scheduler":
            return {
                "INFERENCE_ADDRESS": f"127.0.0.1:{self.fronts['inference'].port}",
                "TRAINER_ADDRESS": f"127.0.0.1:{self.fronts['trainer'].port}",
                "RECONCILE_INTERVAL_S": "0.2",
                "BACKOFF_MAX_S": "0.5",
            }
        own = {"OBJECTS_DIRECTORY": str(self.folder / "objects")}
        if service == "trainer":
            return {**own, "STATE_DIRECTORY": str(self.folder / "trainer")}
        return {**own, "TEMPORARY_DIRECTORY": str(self.folder / "incoming")}


@contextmanager
def site(folder: Path, postgresql: PostgresqlServer) -> Iterator[Site]:
    """An installation that nothing is left of at the end."""
    made = Site(folder, postgresql)
    try:
        yield made
    finally:
        made.stop()


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(30)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _unused_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
