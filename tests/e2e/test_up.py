"""`up`: the stack as a person starts, stops and resumes it."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rekindle.client import Client
from rekindle.config import Organ


def test_ctrl_c_stops_the_stack_and_the_next_start_resumes(tmp_path: Path) -> None:
    """What was created before Ctrl-C is there after the next start, on the same addresses; nothing is left running."""
    port = free_ports()
    with running(tmp_path, port) as first:
        with Client.connect(f"127.0.0.1:{port}") as client:
            created = client.create_project("kept", [Organ("liver", 1)])
        first.send_signal(signal.SIGINT)
        assert first.wait(60) == 0
        assert not answers(port)

    with running(tmp_path, port), Client.connect(f"127.0.0.1:{port}") as client:
        assert [project.name for project in client.projects()] == ["kept"]
        assert client.project(created.id).state == "draft"


def test_a_service_that_dies_is_started_again(tmp_path: Path) -> None:
    """`up` brings a killed scheduler back on its address, with its projects."""
    port = free_ports()
    with running(tmp_path, port), Client.connect(f"127.0.0.1:{port}") as client:
        created = client.create_project("kept", [Organ("liver", 1)])
        killed = service_pid(tmp_path, "scheduler")
        os.kill(killed, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while service_pid(tmp_path, "scheduler") == killed or not answers(port):
            assert time.monotonic() < deadline, "the scheduler did not come back"
            time.sleep(0.2)
        assert client.project(created.id).name == "kept"


def test_the_self_test_takes_one_label_through_the_stack(tmp_path: Path) -> None:
    """Upload, prediction, lease and label, through the client as any other; the label counts for no training."""
    port = free_ports()
    command = [sys.executable, "-m", "rekindle_inference.self_test"]
    with running(tmp_path, port):
        environment = {**os.environ, "REKINDLE_ADDRESS": f"127.0.0.1:{port}"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        with Client.connect(f"127.0.0.1:{port}") as client:
            (project,) = client.projects()
            assert ["in-review"] == [case.state for case in project.cases()]
            assert 1 == len(list(project.submissions()))


@contextmanager
def running(state: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-m", "rekindle_local", "up", "--state", str(state), "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    try:
        lines = []
        for line in process.stdout:
            lines.append(line)
            if line.startswith("Ctrl-C"):
                break
        assert process.poll() is None, "".join(lines)
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
        process.stdout.close()


def service_pid(state: Path, service: str) -> int:
    return int(json.loads((state / "run" / "stack.json").read_text())[service]["pid"])


def answers(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports() -> int:
    """A port that is free together with the two after it."""
    for port in range(23050, 24050, 3):
        if not any(answers(port + offset) for offset in range(3)):
            return port
    raise AssertionError("no free ports")
