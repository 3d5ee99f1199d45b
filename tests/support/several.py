"""Training processes that are started several at a time, by the very command that a Job's pod runs."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from rekindle_servicekit.objects import DirectoryObjects
from rekindle_trainer.adapters.kubernetes_job import JobSpec, job_manifest


def pod_commands(process: list[str], run_id: str, attempt: int, *, gpus: int, nodes: int = 1) -> list[list[str]]:
    """The command of each pod, with the names that a cluster resolves put in."""
    spec = JobSpec(image="image", command=process, gpus=gpus, nodes=nodes)
    (container,) = job_manifest(spec, run_id, attempt)["spec"]["template"]["spec"]["containers"]
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]

    def resolved(part: str, node: int) -> str:
        if part.startswith("--master-addr="):
            return "--master-addr=127.0.0.1"
        if part.startswith("--master-port="):
            return f"--master-port={port}"
        return part.replace("$(JOB_COMPLETION_INDEX)", str(node))

    return [[resolved(part, node) for part in container["command"]] for node in range(nodes)]


def training_process(folder: Path) -> list[str]:
    """The training process, as the service gives it to its launcher, on CPUs."""
    command = [sys.executable, "-m", "rekindle_trainer.process", "--objects", str(folder)]
    return [*command, "--run", "{run_id}", "--attempt", "{attempt}", "--threads", "1", "--device", "cpu"]


@dataclass
class Attempt:
    """The pods of an attempt, as processes."""

    folder: Path
    number: int
    gpus: int = 2
    nodes: int = 1
    run_id: str = "run-1"
    settings: dict[str, str] = field(default_factory=dict)
    pods: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def __enter__(self) -> Attempt:
        environment = {**os.environ, **self.settings}
        commands = pod_commands(
            training_process(self.folder), self.run_id, self.number, gpus=self.gpus, nodes=self.nodes
        )
        for node, command in enumerate(commands):
            with (self.folder / f"pod-{self.number}-{node}.log").open("wb") as log:
                self.pods.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))
        return self

    def __exit__(self, *_: object) -> None:
        for pod in self.pods:
            if pod.poll() is None:
                for process in [*psutil.Process(pod.pid).children(recursive=True), psutil.Process(pod.pid)]:
                    process.kill()
            pod.wait()

    def ranks(self) -> dict[int, psutil.Process]:
        """The training processes that are alive, by rank."""
        found = {}
        for pod in self.pods:
            for process in psutil.Process(pod.pid).children(recursive=True):
                rank = process.environ().get("RANK")
                if rank is not None and "rekindle_trainer.process" in process.cmdline():
                    found[int(rank)] = process
        return found

    def wait(self, timeout_s: float = 120) -> list[int]:
        """Exit codes of the pods."""
        return [pod.wait(timeout_s) for pod in self.pods]

    def said(self) -> str:
        """The pods' output, for messages of tests that fail."""
        return "".join(path.read_text()[-3000:] for path in sorted(self.folder.glob(f"pod-{self.number}-*.log")))

    def wait_for_checkpoint(self) -> None:
        self.wait_until(
            lambda: any((self.folder / f"runs/{self.run_id}/{self.number}").glob("checkpoint/*/state.json"))
        )

    def wait_until(self, condition: Callable[[], Any], timeout_s: float = 120) -> None:
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline, self.said()
            assert all(pod.poll() is None for pod in self.pods), self.said()
            time.sleep(0.02)

    def read(self, name: str) -> dict[str, Any]:
        return json.loads(DirectoryObjects(self.folder).get(f"runs/{self.run_id}/{self.number}/{name}.json"))
