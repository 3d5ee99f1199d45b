"""The three services on one machine: started as processes, watched, stopped in order."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc
from rekindle.client import Client
from rekindle.credentials import Access
from rekindle.errors import AlreadyExists, DependencyUnavailable

#: Services in the order in which they start; they stop in the reverse order.
SERVICES = ("inference", "trainer", "scheduler")
#: Settings that the environment of the stack may give, for a database of one's own.
_CHOSEN_OUTSIDE = ("DATABASE_URL",)
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 20.0


@dataclass(frozen=True, kw_only=True)
class StackOptions:
    """How the stack runs."""

    #: Folder of all that the services keep: databases, objects, logs.
    state: Path
    #: Port of the scheduler; inference and trainer take the next two. 0 takes free ones.
    port: int = 50051
    #: Name of this installation: begins object keys; empty for none.
    installation_id: str = ""
    #: More environment variables, e.g. settings of single services.
    environment: Mapping[str, str] | None = None


class Stack:
    """The running services. As a context manager it starts them and stops them at the end."""

    def __init__(self, options: StackOptions) -> None:
        self._options = options
        self._state = options.state.resolve()
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._addresses: dict[str, str] = {}

    @property
    def addresses(self) -> Mapping[str, str]:
        """host:port by service."""
        return self._addresses

    @property
    def objects_dir(self) -> Path:
        """The directory that stands in for an object store."""
        return self._state / "objects"

    def pid(self, service: str) -> int:
        return self._processes[service].pid

    def client(self, *, timeout_s: float = 120.0) -> Client:
        """A client of this stack."""
        return Client.connect(
            self.addresses["scheduler"],
            inference=self.addresses["inference"],
            trainer=self.addresses["trainer"],
            timeout_s=timeout_s,
            # This stack speaks plain text on loopback, whatever the environment says of other services.
            credentials=Access(),
        )

    def start(self) -> None:
        """Starts all services and waits until they are ready.

        Raises AlreadyExists when a stack runs on this state already, DependencyUnavailable with the end of
        the log when a service does not come up.
        """
        self._refuse_second_stack()
        for folder in ("objects", "logs", "run", "temporary", "trainer"):
            (self._state / folder).mkdir(parents=True, exist_ok=True)
        try:
            for service in SERVICES:
                self.start_service(service)
        except BaseException:
            self.stop()
            raise

    def start_service(self, service: str) -> None:
        """Starts one service (again) on the address that it had before, and waits until it is ready."""
        port_file = self._state / "run" / f"{service}.json"
        port_file.unlink(missing_ok=True)
        log = (self._state / "logs" / f"{service}.log").open("ab")
        with log:
            self._processes[service] = subprocess.Popen(
                [sys.executable, "-m", f"rekindle_{service}"],
                cwd=self._state,
                env={**self._environment(service, port_file)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                # Ctrl-C reaches this process only; it then stops the services in order.
                start_new_session=True,
            )
        self._write_pids()
        self._wait_ready(service, port_file)

    def kill_service(self, service: str) -> None:
        """Kills the service by SIGKILL, like a crash: it cannot tidy up."""
        process = self._processes[service]
        process.kill()
        process.wait()

    def dead_services(self) -> list[str]:
        """Services whose process has ended."""
        return [service for service, process in self._processes.items() if process.poll() is not None]

    def supervise(self, stopped: Callable[[], bool], say: Callable[[str], None], interval_s: float = 0.5) -> None:
        """Starts services that have died again, until `stopped`."""
        while not stopped():
            for service in self.dead_services():
                code = self._processes[service].returncode
                say(f"{service} ended with status {code}; starting it again (log: {self._log(service)})")
                self.start_service(service)
            time.sleep(interval_s)

    def stop(self) -> None:
        """Stops the services, the scheduler first; running training goes on at the next start."""
        for service in reversed(SERVICES):
            process = self._processes.get(service)
            if process is None or process.poll() is not None:
                continue
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._pid_file().unlink(missing_ok=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _environment(self, service: str, port_file: Path) -> dict[str, str]:
        prefix = f"REKINDLE_{service.upper()}_"
        own: dict[str, Any] = {
            "ADDRESS": self._addresses.get(service) or f"127.0.0.1:{self._port(service)}",
            "HEALTH_ADDRESS": "127.0.0.1:0",
            "DATABASE_URL": f"sqlite:///{self._state / f'{service}.sqlite3'}",
            "PORT_FILE": port_file,
            "INSTALLATION_ID": self._options.installation_id,
        }
        if service == "scheduler":
            own["INFERENCE_ADDRESS"] = self._addresses["inference"]
            own["TRAINER_ADDRESS"] = self._addresses["trainer"]
        elif service == "inference":
            own["OBJECTS_DIRECTORY"] = self.objects_dir
            own["TEMPORARY_DIRECTORY"] = self._state / "temporary"
        else:
            own["OBJECTS_DIRECTORY"] = self.objects_dir
            own["STATE_DIRECTORY"] = self._state / "trainer"
        for name in _CHOSEN_OUTSIDE:
            if {prefix + name, f"{prefix}{name}_FILE"} & os.environ.keys():
                del own[name]
        return {
            **os.environ,
            **{prefix + name: str(value) for name, value in own.items()},
            **(self._options.environment or {}),
        }

    def _port(self, service: str) -> int:
        # The client finds inference and trainer on the two ports after the scheduler's.
        offset = {"scheduler": 0, "inference": 1, "trainer": 2}[service]
        return self._options.port + offset if self._options.port else 0

    def _wait_ready(self, service: str, port_file: Path) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while time.monotonic() < deadline:
            if self._processes[service].poll() is not None:
                break
            if port_file.exists():
                told = json.loads(port_file.read_text())
                # The health port always speaks plain text.
                if _is_serving(told["health_address"]):
                    self._addresses[service] = told["address"]
                    return
            time.sleep(0.05)
        raise DependencyUnavailable(f"{service} did not start; the end of its log:\n{self._log_tail(service)}")

    def _log(self, service: str) -> Path:
        return self._state / "logs" / f"{service}.log"

    def _log_tail(self, service: str, lines: int = 15) -> str:
        return "\n".join(self._log(service).read_text(errors="replace").splitlines()[-lines:])

    def _pid_file(self) -> Path:
        return self._state / "run" / "stack.json"

    def _write_pids(self) -> None:
        alive = {name: process.pid for name, process in self._processes.items() if process.poll() is None}
        started = {name: psutil.Process(pid).create_time() for name, pid in alive.items()}
        content = {name: {"pid": pid, "started": started[name]} for name, pid in alive.items()}
        self._pid_file().write_text(json.dumps(content))

    def _refuse_second_stack(self) -> None:
        if not self._pid_file().exists():
            return
        for service, entry in json.loads(self._pid_file().read_text()).items():
            try:
                alive = psutil.Process(entry["pid"]).create_time() == entry["started"]
            except psutil.NoSuchProcess:
                continue
            if alive:
                raise AlreadyExists(
                    f"{service} already runs on {self._state} (process {entry['pid']}): stop that stack "
                    "first, or choose another state folder"
                )


def _is_serving(address: str) -> bool:
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(  # pyright: ignore[reportAttributeAccessIssue]
                health_pb2.HealthCheckRequest(), timeout=2
            )
        except grpc.RpcError:
            return False
    return answer.status == health_pb2.HealthCheckResponse.SERVING
