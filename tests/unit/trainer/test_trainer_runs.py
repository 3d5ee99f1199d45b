"""The run's states, the queue and the retry policy, as pure decisions."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rekindle.errors import IllegalTransition
from rekindle.vocabulary import RunResult, RunState
from rekindle_trainer.domain.metrics import MetricRecord, number_metrics, parse_metric
from rekindle_trainer.domain.queueing import plan_queue
from rekindle_trainer.domain.retry import Failure, ProcessEnd, RetryPolicy, Verdict
from rekindle_trainer.domain.runs import Run
from rekindle_trainer.domain.spec import RunSpec

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SPEC = RunSpec(
    run_id="run", project_id="p", kind="sustainer", preset="tiny", recipe="paper", seed=0, modality="CT",
    organs=(), training=(), heldout=(), initial_weights=None, current_package=None,
)  # fmt: skip
RESULT = RunResult(
    weights_digest="w", packages=(), candidate=(), current=(), training_check=(),
    train_seconds=1.0, epochs=1, final_loss=None,
)  # fmt: skip
QUEUED = Run(run_id="run", project_id="p", spec=SPEC, snapshot_digest="s", created_by="me", created_at=NOW)
STEPS: dict[str, Callable[[Run], Run]] = {
    "claim": lambda run: run.claim(NOW)[0],
    "die": lambda run: run.requeue("died", is_failure=True),
    "preempt": lambda run: run.preempt("stopped"),
    "succeed": lambda run: run.succeed(run.attempts, RESULT, NOW),
    "fail": lambda run: run.fail("why", NOW),
    "cancel": lambda run: run.cancel(NOW),
}
#: From DESIGN: a run is queued, running, preempted, succeeded, failed or cancelled, and an ended one stays so.
ALLOWED = {
    "queued": {"claim": "running", "cancel": "cancelled"},
    "preempted": {"claim": "running", "cancel": "cancelled"},
    "running": {
        "die": "queued", "preempt": "preempted", "succeed": "succeeded", "fail": "failed", "cancel": "cancelled",
    },
    "succeeded": {}, "failed": {}, "cancelled": {},
}  # fmt: skip


@given(st.lists(st.sampled_from(sorted(STEPS)), max_size=12))
def test_a_run_takes_only_allowed_steps(names: list[str]) -> None:
    """Whatever is tried, in any order: an illegal step raises, and what has ended stays; claims are counted."""
    run, claims, deaths = QUEUED, 0, 0
    for name in names:
        expected = ALLOWED[run.state.value].get(name)
        if expected is None:
            with pytest.raises(IllegalTransition):
                STEPS[name](run)
            continue
        run = STEPS[name](run)
        claims, deaths = claims + (name == "claim"), deaths + (name == "die")
        assert (expected, claims, deaths) == (run.state.value, run.attempts, run.failures)
        assert (run.ended_at is not None) == (run.state.value in {"succeeded", "failed", "cancelled"})
        assert (run.committed_attempt is not None) == (run.state is RunState.SUCCEEDED)


@given(running=st.integers(0, 4), waiting=st.integers(0, 6), slots=st.integers(1, 4))
def test_the_queue_fills_free_slots_oldest_first(running: int, waiting: int, slots: int) -> None:
    """As many start as there are free slots; the n-th of the others waits for as many runs as are ahead of it."""
    runs = [
        replace(QUEUED, run_id=f"{n}", state=state, created_at=NOW + timedelta(seconds=n))
        for n, state in enumerate([RunState.RUNNING] * running + [RunState.QUEUED] * waiting)
    ]
    plan = plan_queue(runs[::-1], slots)
    names = [f"{n}" for n in range(running, running + waiting)]
    starts = max(0, min(waiting, slots - running))
    assert names[:starts] == [run.run_id for run in plan.launch]
    for run, reason in plan.waiting:
        must_end = int(run.run_id) - slots + 1  # of the runs ahead, all but `slots - 1`
        assert reason.startswith(f"waits for {must_end} run")
    assert names[starts:] == [run.run_id for run, _ in plan.waiting]


DEAD = ProcessEnd(exit_code=-9)


@pytest.mark.parametrize(
    ("end", "failures", "verdict"),
    [
        (ProcessEnd(exit_code=0, result=RESULT), 0, Verdict.SUCCEED),
        (ProcessEnd(exit_code=-9, result=RESULT), 5, Verdict.SUCCEED),
        (ProcessEnd(exit_code=0, bad_result="odd"), 0, Verdict.FAIL),
        (DEAD, 0, Verdict.RETRY),
        (DEAD, 1, Verdict.RETRY),
        (DEAD, 2, Verdict.FAIL),
        (ProcessEnd(exit_code=None), 0, Verdict.RETRY),
        (ProcessEnd(exit_code=0), 0, Verdict.RETRY),
        (ProcessEnd(exit_code=1), 0, Verdict.RETRY),
        (ProcessEnd(exit_code=2), 0, Verdict.FAIL),
        (ProcessEnd(exit_code=1, failure=Failure(reason="DIVERGED", message="m")), 0, Verdict.FAIL),
        (ProcessEnd(exit_code=1, failure=Failure(reason="DEPENDENCY_UNAVAILABLE", message="m")), 0, Verdict.RETRY),
        (ProcessEnd(exit_code=143), 9, Verdict.PREEMPT),
        (ProcessEnd(exit_code=-9, was_told_to_stop=True), 9, Verdict.PREEMPT),
        (ProcessEnd(exit_code=0, result=RESULT, was_told_to_stop=True), 0, Verdict.SUCCEED),
        (ProcessEnd(launch_error="no file"), 0, Verdict.RETRY),
    ],
)
def test_the_policy_decides(end: ProcessEnd, failures: int, verdict: Verdict) -> None:
    """Two retries: deaths are tried again, reported failures and bad specs not, stops cost nothing."""
    assert verdict is RetryPolicy(max_retries=2).decide(end, failures).verdict


def test_one_of_several_processes_that_ran_out_of_memory_is_told_of() -> None:
    """The others report that they lost it; whoever ran them knows why, and that comes first."""
    lost = Failure(reason="RANK_LOST", message="one of the 4 processes of the run ended")
    words = "the training process was killed: out of memory (limit 16Gi)"
    decision = RetryPolicy(max_retries=0).decide(ProcessEnd(exit_code=137, failure=lost, words=words), 0)
    assert Verdict.FAIL is decision.verdict
    assert decision.reason.startswith(f"{words} (RANK_LOST: one of the 4 processes of the run ended)")


def test_metrics_get_the_next_cursors() -> None:
    """Records that were seen are left out; the others follow on in their order."""
    record = MetricRecord(phase="seed")
    new = number_metrics([(3, record), (1, record), (4, record)], attempt=2, seen=2, last_cursor=7, now=NOW)
    assert [(8, 3), (9, 4)] == [(metric.cursor, metric.number) for metric in new]


@pytest.mark.parametrize(
    "raw", [None, [], {}, {"phase": 1}, {"phase": "a", "step": "x"}, {"phase": "a", "loss": float("nan")}]
)
def test_a_record_that_is_none_is_refused(raw: object) -> None:
    """Missing phase, wrong types, not a number."""
    with pytest.raises(ValueError, match="metrics record"):
        parse_metric(raw)
