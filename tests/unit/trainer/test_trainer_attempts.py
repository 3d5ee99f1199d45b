"""Attempts that die, are given up, found again, or never began."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from rekindle.vocabulary import RunState
from rekindle_trainer.domain.retry import RetryPolicy
from rekindle_trainer.domain.runs import AttemptState
from rekindle_trainer.domain.spec import RunSpec, in_order
from trainer_runs import KILLED, MakeSpec, attempt_of, sha


def test_a_killed_process_is_tried_again_until_the_policy_says_no(service: Any, spec: MakeSpec) -> None:
    """With two retries the third death fails the run; each attempt is on record."""
    service.supervisor.policy = RetryPolicy(max_retries=2)
    service.start(spec())
    for attempt in (1, 2, 3):
        service.pass_()
        service.launcher.ended[f"run-1/{attempt}"] = KILLED
        service.supervisor.advance("run-1")
    run = service.get("run-1")
    assert (RunState.FAILED, 3, 2) == (run.state, run.attempts, run.failures)
    assert "SIGKILL" in run.reason
    assert "tried 3 times" in run.reason
    assert [("run-1", 1), ("run-1", 2), ("run-1", 3)] == service.launcher.launched
    assert KILLED == attempt_of(service, "run-1", 1).exit_code


@pytest.mark.parametrize("code", [2, 1])
def test_a_reported_failure_is_not_tried_again(service: Any, spec: MakeSpec, code: int) -> None:
    """failure.json gives the reason in words, and no second attempt follows."""
    service.start(spec())
    service.pass_()
    service.write("run-1", 1, "failure", {"reason": "DIVERGED", "message": "the loss is not finite"})
    service.launcher.ended["run-1/1"] = code
    service.pass_()
    service.pass_()
    run = service.get("run-1")
    assert (RunState.FAILED, "DIVERGED: the loss is not finite") == (run.state, run.reason)
    assert [("run-1", 1)] == service.launcher.launched


@pytest.mark.parametrize("reason", ["RANK_LOST", "COLLECTIVE_TIMEOUT"])
def test_processes_that_lost_each_other_are_tried_again(service: Any, spec: MakeSpec, reason: str) -> None:
    """The next attempt begins, a retry is spent, and the run says what happened."""
    service.start(spec())
    service.pass_()
    service.write("run-1", 1, "failure", {"reason": reason, "message": "one of the 2 processes ended"})
    service.launcher.ended["run-1/1"] = 76
    service.supervisor.advance("run-1")
    run = service.get("run-1")
    assert (RunState.QUEUED, 1) == (run.state, run.failures)
    assert run.reason.startswith(f"{reason}: one of the 2 processes ended: starts again from its last checkpoint")
    service.pass_()
    assert [("run-1", 1), ("run-1", 2)] == service.launcher.launched


@pytest.mark.parametrize("finishes", ["before the next is claimed", "while the next runs", "after the next"])
def test_an_attempt_that_was_given_up_publishes_nothing(service: Any, spec: MakeSpec, finishes: str) -> None:
    """Its process may go on somewhere and finish, with a result, metrics and a failure of its own: what the run
    publishes is its newest attempt's."""

    def finish_the_old_one() -> None:
        left = make_old_result(service, spec())
        service.write("run-1", 1, "result", left)
        service.write("run-1", 1, "metrics/000001", {"phase": "evaluate", "step": 99})
        service.write("run-1", 1, "failure", {"reason": "DIVERGED", "message": "too late"})

    service.start(spec())
    service.pass_()
    service.launcher.ended["run-1/1"] = KILLED  # as far as its launcher can tell
    service.supervisor.advance("run-1")
    if finishes.startswith("before"):
        finish_the_old_one()
    service.pass_()
    if finishes.startswith("while"):
        finish_the_old_one()
        service.pass_()
    assert (RunState.RUNNING, 2) == (service.get("run-1").state, service.get("run-1").attempts)
    service.succeed(spec(), 2)
    service.pass_()
    if finishes.startswith("after"):
        finish_the_old_one()
        service.pass_()
    run = service.get("run-1")
    assert (RunState.SUCCEEDED, 2, sha("weights")) == (run.state, run.committed_attempt, run.result.weights_digest)
    with service.state.read() as tx:
        assert not [metric for metric in tx.metrics_after("run-1", 0, 100) if metric.attempt == 1]


def make_old_result(service: Any, spec: RunSpec) -> dict[str, Any]:
    """A result that would do, with weights of its own."""
    service.objects.put(f"weights/{sha('old weights')}", b"old weights")
    service.objects.put(f"packages/{sha('package')}/manifest.json", b"{}")
    service.objects.put(f"packages/{sha('package')}/model.onnx", b"graph")
    return {
        "weights_digest": sha("old weights"),
        "packages": [{"modality": spec.modality, "package_digest": sha("package")}],
        "snapshot_digest": in_order(spec).snapshot_digest(),
        "evaluation": {"candidate": [], "current": []},
        "training_check": [],
        "train_seconds": 1.0,
        "epochs": 1,
        "final_loss": 0.5,
    }


def test_a_stopping_service_preempts_without_spending_a_retry(service: Any, spec: MakeSpec) -> None:
    """The process is stopped, the run is PREEMPTED, and the next service starts attempt 2 with no failure."""
    service.start(spec())
    service.pass_()
    service.supervisor.stop_children()
    assert (RunState.PREEMPTED, 0) == (service.get("run-1").state, service.get("run-1").failures)
    service.pass_()
    assert [("run-1", 1)] == service.launcher.launched, "a stopping supervisor starts nothing"
    replace(service.supervisor, _is_closing=threading.Event()).run_pass()
    run = service.get("run-1")
    assert (RunState.RUNNING, 2, 0) == (run.state, run.attempts, run.failures)


def claim_without_launch(service: Any, spec: RunSpec) -> None:
    """A service that dies between its claim and the start of the process."""
    service.start(spec)
    service.supervisor._claim_waiting()


def test_a_process_without_a_handle_is_adopted(service: Any, spec: MakeSpec) -> None:
    """A service that died before it wrote the handle down leaves a process that the next one finds."""
    claim_without_launch(service, spec())
    service.launcher.findable.add("run-1/1")
    service.pass_()
    assert "run-1/1" == attempt_of(service, "run-1", 1).handle
    assert [] == service.launcher.launched


def test_a_claim_without_a_process_is_given_up_in_time(service: Any, spec: MakeSpec) -> None:
    """Not before the time-out, as somebody may be starting it; then a new attempt, at no retry."""
    claim_without_launch(service, spec())
    service.pass_()
    assert [] == service.launcher.launched
    service.supervisor.claim_timeout_s = 0.0
    service.pass_()
    run = service.get("run-1")
    assert ([("run-1", 2)], 0) == (service.launcher.launched, run.failures)
    assert AttemptState.LOST is attempt_of(service, "run-1", 1).state


def test_a_launch_that_was_given_up_meanwhile_is_undone(service: Any, spec: MakeSpec) -> None:
    """A supervisor that wakes up after its claim was given up stops the process that it has just started."""
    service.start(spec())
    ((run, attempt),) = service.supervisor._claim_waiting()
    service.supervisor.claim_timeout_s = 0.0
    service.supervisor.advance("run-1")
    service.supervisor._launch(run, attempt)
    assert ["run-1/1"] == service.launcher.stopped


def test_a_launch_that_fails_counts_as_a_death(service: Any, spec: MakeSpec) -> None:
    """A command that cannot be started is tried again as often as the policy says."""
    service.supervisor.policy = RetryPolicy(max_retries=1)
    service.launcher.error = "No such file or directory"
    service.start(spec())
    service.pass_()
    assert RunState.QUEUED is service.get("run-1").state
    service.pass_()
    run = service.get("run-1")
    assert RunState.FAILED is run.state
    assert "could not be started (No such file or directory)" in run.reason


def test_a_claim_that_waited_for_the_queue_is_as_old_as_itself(service: Any) -> None:
    """Its moment is read once the queue is its own, so that waiting does not use up the time to start a process."""
    moments: list[datetime] = []

    def wait_and_look() -> None:
        with service.state.write() as tx:
            tx.lock_queue()
            moments.append(tx.now)

    with service.state.write() as holder:
        holder.lock_queue()
        waiting = threading.Thread(target=wait_and_look)
        waiting.start()
        time.sleep(0.3)  # it has begun its transaction, and stands in line
        with service.state.read() as tx:
            released = tx.now
    waiting.join()
    assert released <= moments[0]
