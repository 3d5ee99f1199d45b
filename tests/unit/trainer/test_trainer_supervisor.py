"""How the supervisor takes runs from queued to their end."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rekindle.errors import DependencyUnavailable
from rekindle_servicekit.objects import Objects
from rekindle_trainer.domain.retry import RetryPolicy
from rekindle_trainer.domain.runs import Attempt, AttemptState, RunState
from rekindle_trainer.domain.specs import in_order
from rekindle_trainer.ports import ProcessStatus
from rekindle_trainer.spec import RunSpec, parse_spec
from rekindle_trainer.supervisor import Supervisor

MakeSpec = Callable[..., RunSpec]
KILLED = -9


def attempt_of(service: Any, run_id: str, number: int) -> Attempt:
    with service.state.read() as tx:
        found = tx.find_attempt(run_id, number)
    assert found is not None
    return found


def test_a_queued_run_is_launched_after_its_spec_is_stored(service: Any, spec: MakeSpec) -> None:
    """One pass writes spec.json as the process reads it and starts attempt 1."""
    service.start(spec())
    service.pass_()
    run = service.get("run-1")
    assert (RunState.RUNNING, 1) == (run.state, run.attempts)
    assert [("run-1", 1)] == service.launcher.launched
    stored = parse_spec(service.objects.get("runs/run-1/spec.json"))
    by_content = tuple(sorted(spec().training, key=lambda example: example.image_digest))
    assert replace(spec(), training=by_content) == stored


def test_further_runs_wait_and_say_for_how_many(service: Any, spec: MakeSpec) -> None:
    """With one slot the second run waits for one run, the third for two, and the oldest is next."""
    for name in ("run-1", "run-2", "run-3"):
        service.start(spec(name))
    service.pass_()
    assert "waits for 1 run to end" == service.get("run-2").reason
    assert "waits for 2 runs to end" == service.get("run-3").reason
    service.succeed(spec("run-1"), 1)
    service.pass_()
    assert [("run-1", 1), ("run-2", 1)] == service.launcher.launched
    assert "waits for 1 run to end" == service.get("run-3").reason


def test_an_interrupted_run_that_waits_goes_on_saying_why(service: Any, spec: MakeSpec) -> None:
    """The reason of a preempted run stays beside the number of runs that it waits for, and is not piled up."""
    for name in ("run-1", "run-2"):
        service.start(spec(name))
    service.pass_()
    service.launcher.ended["run-1/1"] = 143
    service.supervisor.max_concurrent_runs = 0
    for _ in range(3):
        service.pass_()
    run = service.get("run-1")
    assert run.state is RunState.PREEMPTED
    assert run.reason == "stopped after a checkpoint: goes on from there; waits for 1 run to end"


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


def test_a_run_that_cannot_be_followed_says_why(service: Any, spec: MakeSpec) -> None:
    """A cluster that does not answer, or does not allow the question, is told of until it can be asked again."""
    service.start(spec())
    service.pass_()
    poll = service.launcher.poll

    def refused(handle: str) -> ProcessStatus:
        raise DependencyUnavailable("Kubernetes: the Kubernetes API answers 403: pods is forbidden")

    service.launcher.poll = refused
    service.pass_()
    run = service.get("run-1")
    assert (RunState.RUNNING, 0) == (run.state, run.failures)
    assert "cannot be looked after now: Kubernetes: the Kubernetes API answers 403: pods is forbidden" == run.reason
    service.launcher.poll = poll
    service.pass_()
    assert (RunState.RUNNING, "") == (service.get("run-1").state, service.get("run-1").reason)


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


def test_a_result_is_committed_once_it_is_proved(service: Any, spec: MakeSpec) -> None:
    """The numbers of result.json become the run's; undefined ones stay undefined."""
    service.start(spec())
    service.pass_()
    service.succeed(spec(), 1)
    service.pass_()
    run = service.get("run-1")
    assert (RunState.SUCCEEDED, 1, "") == (run.state, run.committed_attempt, run.reason)
    liver, spleen = run.result.candidate[0].organs
    assert (0.9, 3.5, -12.0, 1400.0) == (liver.dice, liver.hd95_mm, liver.volume_error_ml, liver.predicted_ml)
    assert (None, None) == (spleen.dice, spleen.hd95_mm)
    assert (12.5, 3, 0.25) == (run.result.train_seconds, run.result.epochs, run.result.final_loss)
    assert AttemptState.SUCCEEDED is attempt_of(service, "run-1", 1).state


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda raw: raw | {"snapshot_digest": "0" * 64}, "another snapshot"),
        (lambda raw: raw | {"packages": []}, "no package for CT"),
        (lambda raw: raw | {"weights_digest": "1" * 64}, "is not stored"),
        (lambda raw: {k: v for k, v in raw.items() if k != "evaluation"}, "cannot be read"),
    ],
)
def test_a_result_that_does_not_hold_fails_the_run(
    service: Any,
    spec: MakeSpec,
    result: Callable[[Objects, RunSpec], dict[str, Any]],
    spoil: Callable[[dict[str, Any]], dict[str, Any]],
    words: str,
) -> None:
    """Another snapshot, a missing package, missing weights or missing parts: FAILED, with the reason."""
    service.start(spec())
    service.pass_()
    service.write("run-1", 1, "result", spoil(result(service.objects, spec())))
    service.launcher.ended["run-1/1"] = 0
    service.pass_()
    run = service.get("run-1")
    assert RunState.FAILED is run.state
    assert words in run.reason
    assert run.result is None


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


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


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


def test_two_supervisors_launch_one_process(service: Any, spec: MakeSpec) -> None:
    """Passes at the same time on one database claim the run once."""
    service.start(spec())
    others = [replace(service.supervisor) for _ in range(4)]
    barrier = threading.Barrier(len(others))

    def work(supervisor: Supervisor) -> None:
        barrier.wait()
        supervisor.run_pass()

    threads = [threading.Thread(target=work, args=(supervisor,)) for supervisor in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [("run-1", 1)] == service.launcher.launched
    assert 1 == service.get("run-1").attempts


def test_one_end_is_committed_once(service: Any, spec: MakeSpec) -> None:
    """Two supervisors that saw the same death count one failure and queue one further attempt."""
    service.start(spec())
    service.pass_()
    service.launcher.ended["run-1/1"] = KILLED
    others = [replace(service.supervisor) for _ in range(4)]
    threads = [threading.Thread(target=other._guarded, args=("run-1", other.advance)) for other in others]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert 1 == service.get("run-1").failures


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


def test_a_malformed_metric_does_not_stop_the_ones_after_it(service: Any, spec: MakeSpec) -> None:
    """A record that is no record is left out."""
    service.start(spec())
    service.pass_()
    service.objects.put("runs/run-1/1/metrics/000001.json", b"not json")
    service.objects.put("runs/run-1/1/metrics/000002.json", json.dumps({"phase": "seed", "step": 2}).encode())
    service.pass_()
    assert 2 == service.get("run-1").latest.number
