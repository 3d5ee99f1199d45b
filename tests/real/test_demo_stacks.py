"""One campaign on the embedded stack and on PostgreSQL, MinIO and a Triton that is killed in the middle."""

import threading
from pathlib import Path

import pytest
from real_stack import real_servers
from rekindle_local.demo import DemoOptions, run_demo
from rekindle_local.history import differences, read_history
from rekindle_local.synthetic import make_dataset


@pytest.mark.timeout(900)
def test_both_stacks_make_the_same_labels(tmp_path: Path) -> None:
    """Equal digests of every coarse label, snapshot and package, and the same rounds; Triton was killed meanwhile.

    Both engines run the same graph by the same release of ONNX Runtime with as many threads, so not a bit differs.
    """
    make_dataset(tmp_path / "data", seed=5, ct=2, mr=0, target=4)
    said: list[str] = []
    campaign = {"data": tmp_path / "data", "preset": "tiny"}
    run_demo(DemoOptions(out=tmp_path / "embedded", **campaign), said.append)
    with real_servers(tmp_path / "servers") as servers:

        def say(line: str) -> None:
            said.append(line)
            if line.startswith("round 1: the new model serves"):
                # Its coarse labels are being made.
                servers.triton.kill()
                threading.Timer(3.0, servers.triton.start).start()

        run_demo(DemoOptions(out=tmp_path / "real", environment=servers.environment, **campaign), say)
        assert servers.triton.starts == 2
    embedded, real = read_history(tmp_path / "embedded"), read_history(tmp_path / "real")
    assert [] == differences(embedded, real), "\n".join(said)
    assert 4 == len(real["coarse_labels"])
    assert all(label["mask"] for label in real["coarse_labels"].values())
