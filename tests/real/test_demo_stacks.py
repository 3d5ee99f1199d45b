"""One campaign on the embedded stack and on PostgreSQL, MinIO and a Triton that is killed in the middle."""

import threading
from pathlib import Path
from typing import Self

import pytest
from real_stack import real_servers
from rekindle_local.demo import DemoOptions, run_demo
from rekindle_local.history import differences, read_history
from rekindle_local.synthetic import make_dataset
from servers.triton import TritonServer


class Restarter:
    """Kills a server when told to and starts it again, in a thread that lives as long as the server may."""

    def __init__(self, server: TritonServer) -> None:
        self._server = server
        self._told, self._over = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def go(self) -> None:
        self._told.set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._told.set()
        self._thread.join()

    def _run(self) -> None:
        self._told.wait()
        if not self._over.is_set():
            self._server.kill()
            self._over.wait(3.0)
            self._server.start()
        # The kernel ends a server with the thread that started it.
        self._over.wait()


@pytest.mark.timeout(1200)
def test_both_stacks_make_the_same_labels(tmp_path: Path) -> None:
    """Equal digests of every coarse label, snapshot and package, and the same rounds; Triton was killed meanwhile.

    Both engines run the same graph by the same release of ONNX Runtime with as many threads, so not a bit differs.
    """
    make_dataset(tmp_path / "data", seed=5, ct=2, mr=0, target=3)
    said: list[str] = []
    campaign = {"data": tmp_path / "data", "preset": "tiny"}
    run_demo(DemoOptions(out=tmp_path / "embedded", **campaign), said.append)
    with real_servers(tmp_path / "servers") as servers, Restarter(servers.triton) as restarter:

        def say(line: str) -> None:
            said.append(line)
            if line.startswith("round 1: the new model serves"):
                # Its coarse labels are being made.
                restarter.go()

        run_demo(DemoOptions(out=tmp_path / "real", environment=servers.environment, **campaign), say)
        assert servers.triton.starts == 2, "\n".join(said)
    embedded, real = read_history(tmp_path / "embedded"), read_history(tmp_path / "real")
    assert [] == differences(embedded, real), "\n".join(said)
    assert 3 == len(real["coarse_labels"])
    assert all(label["mask"] for label in real["coarse_labels"].values())
