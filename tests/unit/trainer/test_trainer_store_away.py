"""An object store that is away costs a run time, and nothing else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from rekindle.errors import DependencyUnavailable, NotFound
from rekindle.vocabulary import RunState
from rekindle_servicekit.objects import MemoryObjects
from rekindle_trainer.domain.retry import ProcessEnd, RetryPolicy, Verdict
from rekindle_trainer.domain.spec import RunSpec
from rekindle_trainer.process.retrying_objects import RetryingObjects


class Away:
    """A store that is unavailable for its first so many calls."""

    def __init__(self, times: float) -> None:
        self.times = times
        self.calls = 0
        self._objects = MemoryObjects()

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> Any:
            self.calls += 1
            if self.calls <= self.times:
                raise DependencyUnavailable("the object store cannot be reached", reason="OBJECT_STORE_UNAVAILABLE")
            return getattr(self._objects, name)(*arguments)

        return call


@pytest.fixture
def no_sleep(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long was slept, without sleeping."""
    slept: list[float] = []
    now = time.monotonic

    def sleep(seconds: float) -> None:
        slept.append(seconds)

    monkeypatch.setattr("rekindle_trainer.process.retrying_objects.time.sleep", sleep)
    monkeypatch.setattr("rekindle_trainer.process.retrying_objects.time.monotonic", lambda: now() + sum(slept))
    return slept


def test_the_training_process_waits_for_the_store(no_sleep: list[float]) -> None:
    """Longer each time, up to ten seconds, and then does what it was about to do."""
    store = Away(times=6)
    RetryingObjects(store, patience_s=900, should_stop=lambda: False).put("runs/r/1/a", b"metrics")
    assert [0.5, 1.0, 2.0, 4.0, 8.0, 10.0] == no_sleep
    assert b"metrics" == store.get("runs/r/1/a")


def test_patience_has_an_end(no_sleep: list[float]) -> None:
    """After which the store's error is passed on."""
    with pytest.raises(DependencyUnavailable):
        RetryingObjects(Away(times=float("inf")), patience_s=60, should_stop=lambda: False).get("runs/r/1/a")
    assert 45 < sum(no_sleep) <= 60


def test_who_is_told_to_stop_does_not_wait(no_sleep: list[float]) -> None:
    """So that a service that ends need not kill its training processes."""
    with pytest.raises(DependencyUnavailable):
        RetryingObjects(Away(times=float("inf")), patience_s=60, should_stop=lambda: True).get("runs/r/1/a")
    assert [] == no_sleep


def test_other_errors_are_passed_on_at_once(no_sleep: list[float]) -> None:
    """What is not there is not waited for."""
    with pytest.raises(NotFound):
        RetryingObjects(Away(times=0), patience_s=60, should_stop=lambda: False).get("runs/r/1/a")
    assert [] == no_sleep


def test_a_process_that_gave_up_on_the_store_costs_no_retry() -> None:
    """Its run goes on however often that happens, as it is no fault of the run's."""
    decision = RetryPolicy(max_retries=0).decide(ProcessEnd(exit_code=75), failures=5)
    assert (Verdict.PREEMPT, "the object store was away: goes on from the last checkpoint") == (
        decision.verdict,
        decision.reason,
    )


def test_nothing_is_begun_while_the_store_is_away(service: Any, spec: Callable[..., RunSpec]) -> None:
    """A run waits without using up attempts and says for what, and begins once the store is back."""
    service.start(spec())
    healthy, service.supervisor.objects = service.supervisor.objects, Away(times=float("inf"))
    for _ in range(3):
        with pytest.raises(DependencyUnavailable):
            service.pass_()
    run = service.get("run-1")
    assert (RunState.QUEUED, 0, []) == (run.state, run.attempts, service.launcher.launched)
    assert "waits for the object store: the object store cannot be reached" == run.reason
    service.supervisor.objects = healthy
    service.pass_()
    assert ([("run-1", 1)], "") == (service.launcher.launched, service.get("run-1").reason)


def test_a_store_that_goes_away_at_the_start_costs_no_retry(service: Any, spec: Callable[..., RunSpec]) -> None:
    """Between the look at it and the first object: the next attempt is not counted as a retry."""
    service.start(spec())

    class JustGone(MemoryObjects):
        def put(self, key: str, data: bytes) -> None:
            raise DependencyUnavailable("the object store cannot be reached")

    healthy, service.supervisor.objects = service.supervisor.objects, JustGone()
    service.pass_()
    assert (RunState.PREEMPTED, 0) == (service.get("run-1").state, service.get("run-1").failures)
    service.supervisor.objects = healthy
    service.pass_()
    assert [("run-1", 2)] == service.launcher.launched
