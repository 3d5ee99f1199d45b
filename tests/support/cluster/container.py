"""One container: a process in namespaces of its own, with exactly the file system, user and environment it asks for."""

from __future__ import annotations

import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cluster.image import Image, bind, root_script
from cluster.store import CannotStart, Manifest, expanded

_PROGRAMS = ("unshare", "nsenter", "setpriv", "pivot_root", "mount", "umount")


def why_not() -> str:
    """Why containers cannot be made on this machine; empty where they can."""
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"containers need {', '.join(missing)}"
    if os.geteuid() != 0:
        return "containers need root: mounts, namespaces and other users"
    probe = [
        "unshare",
        "--mount",
        "--net",
        "--pid",
        "--ipc",
        "--uts",
        "--fork",
        "mount",
        "-t",
        "tmpfs",
        "tmpfs",
        "/mnt",
    ]
    tried = subprocess.run(probe, capture_output=True, text=True, check=False)
    return f"this machine permits no namespaces: {tried.stderr.strip()}" if tried.returncode else ""


@dataclass(frozen=True)
class Volume:
    """A folder of this machine at a place in the container."""

    source: Path
    target: str
    read_only: bool


@dataclass(frozen=True)
class Security:
    """Who a container runs as, and what it must not."""

    user: int
    group: int
    groups: tuple[int, ...]
    has_read_only_root: bool
    drops_capabilities: bool
    may_gain: bool

    @classmethod
    def of(cls, pod: Manifest, container: Manifest, image: Image) -> Security:
        """The container's own words before those of its pod; CannotStart for root where the pod refuses root."""
        both: dict[str, Any] = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
        user = both.get("runAsUser", image.user)
        if both.get("runAsNonRoot") and user == 0:
            raise CannotStart(f"container {container['name']} would run as root")
        return cls(
            user=user,
            group=both.get("runAsGroup", 0),
            groups=(both["fsGroup"],) if "fsGroup" in both else (),
            has_read_only_root=both.get("readOnlyRootFilesystem", False),
            drops_capabilities="ALL" in both.get("capabilities", {}).get("drop", ()),
            may_gain=both.get("allowPrivilegeEscalation", True),
        )

    def command(self) -> list[str]:
        groups = ["--groups", ",".join(map(str, self.groups))] if self.groups else ["--clear-groups"]
        return [
            *("setpriv", "--reuid", str(self.user), "--regid", str(self.group), *groups),
            *(["--bounding-set=-all", "--inh-caps=-all"] if self.drops_capabilities else []),
            *([] if self.may_gain else ["--no-new-privs"]),
            *("--pdeathsig", "KILL", "--"),
        ]


class Container:
    """Runs once, as process 1 of its own; what it says goes to `log`."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        self._folder = folder
        self.log = folder / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        image: Image,
        security: Security,
        volumes: Sequence[Volume],
        *,
        network: int,
        hostname: str,
        hosts: Path,
    ) -> None:
        """In the network namespace of the process `network`."""
        root = self._folder / f"{self.name}.root"
        root.mkdir(parents=True, exist_ok=True)
        mounts = sorted(volumes, key=lambda volume: volume.target)
        lines = [
            f"mount -t tmpfs -o mode=0755 tmpfs {shlex.quote(str(root))}",
            *root_script(image, str(root)),
            *bind(hosts, "/etc/hosts", read_only=True),
            *(line for each in mounts for line in bind(each.source, each.target, read_only=each.read_only)),
            *(line for source in image.sources for line in bind(source, str(source), read_only=True)),
            *(["mount -o remount,ro,bind ."] if security.has_read_only_root else []),
            f"hostname {shlex.quote(hostname)}",
            "pivot_root . old",
            f"cd {shlex.quote(image.workdir)}",
            "umount -l /old",
            f"exec {shlex.join([*security.command(), *(expanded(part, environment) for part in command)])}",
        ]
        own_world = ["nsenter", f"--net=/proc/{network}/ns/net", "--", "unshare", "--mount", "--pid", "--ipc", "--uts"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    "setpriv",
                    "--pdeathsig",
                    "KILL",
                    "--",
                    *own_world,
                    "--fork",
                    "--kill-child",
                    "sh",
                    "-ec",
                    "\n".join(lines),
                ],
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        assert self.process is not None
        return self.process.poll()

    @property
    def inside(self) -> Path:
        """Of its first process, in /proc."""
        assert self.process is not None
        (first,) = psutil.Process(self.process.pid).children()
        return Path(f"/proc/{first.pid}")

    def text(self) -> str:
        return self.log.read_text(errors="replace")

    def stop(self, grace_s: float) -> int:
        """SIGTERM to its first process, SIGKILL after the grace; the exit code."""
        assert self.process is not None
        signal_first(self.process, signal.SIGTERM)
        deadline = time.monotonic() + grace_s
        while self.process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.05)
        signal_first(self.process, signal.SIGKILL)
        return self.process.wait(20)


def signal_first(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """To a container's process 1, the only child of what made its namespaces."""
    if process.poll() is None:
        for child in psutil.Process(process.pid).children():
            child.send_signal(number)
