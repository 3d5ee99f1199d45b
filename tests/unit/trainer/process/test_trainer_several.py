"""Several processes do what one does on whole batches, and write once."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import safetensors.torch
import torch
import training_jobs
from box_runs import add_example, put_spec
from rekindle_servicekit.objects import DirectoryObjects, MemoryObjects
from rekindle_trainer.domain.spec import BadSpec
from rekindle_trainer.process import __main__ as process
from rekindle_trainer.process.run import run
from rekindle_trainer.process.torchrun import telling_code
from rekindle_trainer.process.training.checkpoint import unpack_weights
from rekindle_trainer.process.training.distributed import ALONE, Ranks
from several import Attempt
from training_jobs import JOBS, normalised, weights_of

Tensors = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes under torchrun leave of all jobs."""
    folder = tmp_path_factory.mktemp("two")
    command = [sys.executable, "-m", "rekindle_trainer.process.torchrun", "--standalone", "--nproc-per-node=2"]
    done = subprocess.run(
        [*command, training_jobs.__file__, str(folder)], capture_output=True, text=True, timeout=240, check=False
    )
    assert 0 == done.returncode, done.stderr[-3000:]
    return folder


def difference(one: Tensors, other: Tensors, start: Tensors) -> float:
    """Length of the difference of two networks, relative to the way that training has gone."""

    def length(first: Tensors, second: Tensors) -> float:
        return sum(float((first[k].double() - second[k].double()).square().sum()) for k in first) ** 0.5

    return length(one, other) / length(one, start)


@pytest.mark.parametrize("name", JOBS)
def test_two_processes_reach_the_weights_of_one(name: str, by_two: Path) -> None:
    """Norms, dropout, both losses, class weights and distillation are of the whole batch, split evenly or not.

    What is left is the order of summation in float32: a few 1e-7 of the way under SGD, more under Adam, whose steps
    have one size however small a gradient is. Norms or dropout of the parts alone differ by 1e-2 and more.
    """
    torch.manual_seed(0)
    start = {k: v.clone() for k, v in JOBS[name](ALONE).network.state_dict().items()}
    alone = safetensors.torch.load(weights_of(name))
    together = safetensors.torch.load((by_two / f"{name}.safetensors").read_bytes())
    assert alone.keys() == together.keys()
    assert 0 < difference(alone, together, start) < (3e-3 if name.endswith("adam") else 2e-5)


def test_a_batch_norm_over_two_processes_is_that_of_the_whole_batch(by_two: Path) -> None:
    """Output, all gradients and moving statistics are torch's own of all five samples, in double precision."""
    expected = normalised(ALONE, dtype=torch.float64)
    actual = safetensors.torch.load((by_two / "norm.safetensors").read_bytes())
    assert expected.keys() == actual.keys()
    for key, value in expected.items():
        torch.testing.assert_close(value, actual[key], atol=1e-12, rtol=1e-12)


def test_told_to_stop_all_leave_after_a_checkpoint_and_one_goes_on(tmp_path: Path) -> None:
    """Started as a Job's pod starts them: 143 for the pod, numbered metrics of one writer, no failure; one process
    goes on from their checkpoint, and ends near the weights of a run that was one process from its beginning.

    Near: 80 steps make 4e-3 of a change of 1e-7 in the starting weights of one process.
    """
    objects, whole = DirectoryObjects(tmp_path), MemoryObjects()
    for store in (objects, whole):
        targets = [add_example(store, number, source="target") for number in range(10, 18)]
        put_spec(store, "run-1", kind="sustainer", recipe="paper", training=targets, heldout=[])
    with Attempt(tmp_path, 1) as attempt:
        attempt.wait_for_checkpoint()
        attempt.pods[0].send_signal(signal.SIGTERM)
        assert [143] == attempt.wait(), attempt.said()
    assert not objects.exists("runs/run-1/1/failure.json")
    keys = list(objects.list("runs/run-1/1/metrics/"))
    assert [f"runs/run-1/1/metrics/{n:06d}.json" for n in range(1, len(keys) + 1)] == keys
    phases = [json.loads(objects.get(key))["phase"] for key in keys]
    assert ("prepare", 1) == (phases[0], phases.count("prepare"))

    resumed, reference = run(objects, "run-1", 2), run(whole, "run-1", 1)
    first = json.loads(objects.get("runs/run-1/2/metrics/000002.json"))
    assert first["step"] > 10
    mine, _ = unpack_weights(objects.get(f"weights/{resumed['weights_digest']}"))
    theirs, _ = unpack_weights(whole.get(f"weights/{reference['weights_digest']}"))
    nothing = {key: torch.zeros_like(value) for key, value in theirs.items()}
    assert difference(theirs, mine, nothing) < 1e-2


class Many(Ranks):
    """The first of nine processes, which never meets the others."""

    size = 9


def test_a_batch_that_is_too_small_is_refused_before_training(objects: MemoryObjects) -> None:
    """Nine processes and four slices per step: a reason, what to change, and no checkpoint."""
    put_spec(objects, "run-1")
    with pytest.raises(BadSpec, match="at most 4 GPUs") as caught:
        run(objects, "run-1", 1, ranks=Many())
    assert "BATCH_TOO_SMALL" == caught.value.reason
    assert not [key for key in objects.list("runs/") if "checkpoint" in key]


@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_parts_are_the_whole_in_order(size: int) -> None:
    """Every slice belongs to one process, and none has two more than another."""
    ranks = [Ranks() for _ in range(size)]
    for number, one in enumerate(ranks):
        one.rank, one.size = number, size
    parts = [list(range(12))[one.part(12)] for one in ranks]
    assert list(range(12)) == [item for part in parts for item in part]
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_waiting_for_the_store_must_be_shorter_than_for_each_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Otherwise one process that waits for the object store would look like one that hangs."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("REKINDLE_PROCESS_COLLECTIVE_TIMEOUT_S", "60")
    arguments = ["--objects", str(tmp_path), "--run", "run-1", "--attempt", "1", "--device", "cpu"]
    assert process.BAD_SPEC == process.main(arguments)
    failure = json.loads((tmp_path / "runs/run-1/1/failure.json").read_text())
    assert "BAD_SETTINGS" == failure["reason"]
    assert "above objects_patience_s" in failure["message"]


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        ([143, 143], 143),
        ([76, -9], 137),
        ([76, 2], 2),
        ([76, 75], 75),
        ([143, 1], 1),
        ([76, 76], 76),
        ([-6, 76], 134),
        ([76, -15], 76),
        ([-15, -15], 143),
    ],
)
def test_a_pod_ends_with_the_code_that_tells_most(codes: list[int], expected: int) -> None:
    """A killed process before those that lost it; an error of one's own before what followed from it."""
    assert expected == telling_code(codes)


ABORTS_AT_ITS_END = """
import atexit, logging, os, sys
from rekindle_trainer.process.training.distributed import leave
atexit.register(os.abort)
logging.basicConfig(stream=sys.stderr)
print("written")
logging.warning("logged")
leave(143)
"""


def test_a_process_that_leaves_is_not_aborted_on_its_way_out() -> None:
    """Its code is its own, whatever the interpreter's end would have done, and what it wrote has arrived."""
    done = subprocess.run([sys.executable, "-c", ABORTS_AT_ITS_END], capture_output=True, text=True, check=False)
    assert (143, "written\n") == (done.returncode, done.stdout)
    assert "logged" in done.stderr
