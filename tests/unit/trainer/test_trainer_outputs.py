"""What the supervisor reads of runs and keeps of them: metrics, checkpoints."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rekindle.vocabulary import RunState
from rekindle_trainer.supervisor import Supervisor
from trainer_runs import KILLED, MakeSpec


def test_checkpoints_go_once_the_run_has_succeeded(service: Any, spec: MakeSpec) -> None:
    """Those of all attempts are removed; metrics, result and another run's checkpoints stay."""
    service.start(spec())
    service.pass_()
    for key in ("run-1/1/checkpoint/00000004/state.json", "run-1/1/metrics/000001.json", "run-9/1/checkpoint/1/a"):
        service.objects.put(f"runs/{key}", b"{}")
    service.succeed(spec(), 1)
    service.pass_()
    left = set(service.objects.list("runs/"))
    assert "runs/run-1/1/checkpoint/00000004/state.json" not in left
    assert {"runs/run-1/1/metrics/000001.json", "runs/run-1/1/result.json", "runs/run-9/1/checkpoint/1/a"} <= left


@pytest.mark.parametrize("end", ["fails", "is cancelled"])
def test_checkpoints_go_with_a_run_that_came_to_nothing(service: Any, spec: MakeSpec, end: str) -> None:
    """Nothing goes on from them: what is trained instead is another run."""
    service.start(spec())
    service.pass_()
    service.objects.put("runs/run-1/1/checkpoint/00000004/state.json", b"{}")
    if end == "fails":
        service.write("run-1", 1, "failure", {"reason": "DIVERGED", "message": "the loss is not finite"})
        service.launcher.ended["run-1/1"] = 1
    else:
        with service.state.write() as tx:
            tx.update_run(service.get("run-1").request_cancel())
    service.pass_()
    assert service.get("run-1").has_ended
    assert not [key for key in service.objects.list("runs/") if "checkpoint" in key]


@pytest.mark.parametrize("is_complete", [True, False])
def test_checkpoints_of_earlier_attempts_go_with_the_first_complete_one(
    service: Any, spec: MakeSpec, is_complete: bool
) -> None:
    """A run that stops each night keeps the newest attempt's; while that has no complete one, those before stay."""
    service.start(spec())
    for attempt, names in ((1, ("state.json", "weights.safetensors")), (2, ("weights.safetensors",))):
        service.pass_()
        for name in (*names, *(("state.json",) if is_complete and attempt == 2 else ())):
            service.objects.put(f"runs/run-1/{attempt}/checkpoint/0000000{attempt}/{name}", b"{}")
        service.launcher.ended[f"run-1/{attempt}"] = 143
        service.supervisor.advance("run-1")
    left = {key.split("/")[2] for key in service.objects.list("runs/") if "checkpoint" in key}
    assert ({"2"} if is_complete else {"1", "2"}) == left


def test_checkpoints_that_a_dead_supervisor_left_are_removed_at_the_next_start(service: Any, spec: MakeSpec) -> None:
    """A supervisor that died between the commit and the removal is made up for."""
    service.start(spec())
    service.pass_()
    service.succeed(spec(), 1)
    service.pass_()
    service.objects.put("runs/run-1/1/checkpoint/00000004/state.json", b"{}")
    again = Supervisor(state=service.state, objects=service.objects, launcher=service.launcher)
    again.run_pass()
    assert not [key for key in service.objects.list("runs/") if "checkpoint" in key]


def test_metrics_are_numbered_through_all_attempts(service: Any, spec: MakeSpec) -> None:
    """Cursors go on where the attempt before ended; each record is stored once, however often it is seen."""
    service.start(spec())
    service.pass_()
    for number in (1, 2):
        service.write("run-1", 1, f"metrics/{number:06d}", {"phase": "corrected", "step": number, "loss": 0.5})
        service.pass_()
        service.pass_()
    service.launcher.ended["run-1/1"] = KILLED
    service.pass_()
    service.write("run-1", 2, "metrics/000001", {"phase": "corrected", "step": 9, "loss": 0.25})
    service.pass_()
    with service.state.read() as tx:
        metrics = tx.metrics_after("run-1", 0, 100)
    seen = [(metric.cursor, metric.attempt, metric.record.step) for metric in metrics]
    assert [(1, 1, 1), (2, 1, 2), (3, 2, 9)] == seen
    latest = service.get("run-1").latest
    assert (3, 0.25) == (latest.cursor, latest.record.loss)


def test_last_metrics_of_an_ended_process_are_kept(service: Any, spec: MakeSpec) -> None:
    """What was written between the last look and the end is read before the end is committed."""
    service.start(spec())
    service.pass_()
    service.write("run-1", 1, "metrics/000001", {"phase": "evaluate", "step": 20})
    service.succeed(spec(), 1)
    service.pass_()
    run = service.get("run-1")
    assert (RunState.SUCCEEDED, "evaluate") == (run.state, run.latest.record.phase)


def test_a_malformed_metric_does_not_stop_the_ones_after_it(service: Any, spec: MakeSpec) -> None:
    """A record that is no record is left out."""
    service.start(spec())
    service.pass_()
    service.objects.put("runs/run-1/1/metrics/000001.json", b"not json")
    service.objects.put("runs/run-1/1/metrics/000002.json", json.dumps({"phase": "seed", "step": 2}).encode())
    service.pass_()
    assert 2 == service.get("run-1").latest.number
