"""What Prometheus is told of runs."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from rekindle_servicekit import database
from rekindle_servicekit.metrics import StateCollector
from rekindle_trainer.adapters.prometheus import run_metrics
from rekindle_trainer.domain.limits import TrainingLimits
from rekindle_trainer.domain.windows import OpeningTimes
from rekindle_trainer.ports import ProcessStatus
from trainer_runs import MakeSpec


def scrape(state: Any) -> dict[tuple[str, str], float]:
    """Name and the one label's value (empty without) -> value."""
    registry = CollectorRegistry()
    registry.register(StateCollector(lambda: run_metrics(state)))
    return {
        (sample.name.removeprefix("rekindle_"), next(iter(sample.labels.values()), "")): sample.value
        for family in registry.collect()
        for sample in family.samples
    }


def test_runs_are_counted_by_state_and_the_wait_is_told(service: Any, spec: MakeSpec) -> None:
    """One run under way and two that queue; states without runs are 0, so that an alert can compare them."""
    for name in ("run-1", "run-2", "run-3"):
        service.start(spec(name))
    service.pass_()
    told = scrape(service.state)
    assert (1, 2, 0) == tuple(told["training_runs", state] for state in ("running", "queued", "failed"))
    assert 0 < told["training_queue_wait_seconds", ""] < 60


@pytest.fixture
def hours(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How late it is, by the database's clock, as a test says; from noon in Berlin on."""
    late = [0.0]
    noon = datetime(2026, 1, 14, 11, tzinfo=UTC)
    monkeypatch.setattr(database, "database_now", lambda _: noon + timedelta(hours=late[0]))
    return late


def test_a_run_that_was_interrupted_waits_since_then(service: Any, spec: MakeSpec, hours: list[float]) -> None:
    """Ten hours of training are no wait; the two since it was preempted are, and none once a process is at work."""
    service.start(spec())
    service.pass_()
    service.pass_()
    hours[0] = 10.0
    assert 0 == scrape(service.state)["training_queue_wait_seconds", ""]
    service.launcher.ended["run-1/1"] = 143
    service.supervisor.advance("run-1")
    hours[0] = 12.0
    assert 2 * 3600 == scrape(service.state)["training_queue_wait_seconds", ""]
    service.pass_()
    service.pass_()
    assert 0 == scrape(service.state)["training_queue_wait_seconds", ""]


def test_a_job_that_finds_no_node_waits(service: Any, spec: MakeSpec, hours: list[float]) -> None:
    """Also where it was at work before: what the alert is for is a cluster without room."""
    no_room = ProcessStatus(is_running=True, reason="no node takes its pod: 0/3 nodes are available")
    service.launcher.said["run-1/1"] = no_room
    service.start(spec())
    service.pass_()
    service.pass_()
    hours[0] = 1.0
    assert 3600 == scrape(service.state)["training_queue_wait_seconds", ""]
    del service.launcher.said["run-1/1"]
    service.pass_()
    assert 0 == scrape(service.state)["training_queue_wait_seconds", ""]
    hours[0] = 2.0
    service.launcher.said["run-1/1"] = no_room
    service.pass_()
    hours[0] = 2.5
    assert 1800 == scrape(service.state)["training_queue_wait_seconds", ""]


def test_a_closed_window_is_no_wait(service: Any, spec: MakeSpec, hours: list[float]) -> None:
    """A project that trains at night does not raise an alert every day; a run that waits in its window, from when that
    opens on, does, also one that was preempted at the window's end and then finds no node."""
    window = OpeningTimes(start="20:00", end="06:00", time_zone="Europe/Berlin")
    with service.state.write() as tx:
        tx.set_limits("project", TrainingLimits(version=1, window=window))
    service.start(spec())
    hours[0] = 7.5
    assert 0 == scrape(service.state)["training_queue_wait_seconds", ""]
    hours[0] = 9.0
    assert 3600 == scrape(service.state)["training_queue_wait_seconds", ""]
    service.pass_()
    service.pass_()
    hours[0] = 19.0
    service.supervisor.advance("run-1")
    assert "PREEMPTED" == service.get("run-1").state.name
    assert 0 == scrape(service.state)["training_queue_wait_seconds", ""]
    hours[0] = 32.25
    service.launcher.said["run-1/2"] = ProcessStatus(is_running=True, reason="no node takes its pod")
    service.pass_()
    service.pass_()
    assert 900 == scrape(service.state)["training_queue_wait_seconds", ""]


def test_a_spent_budget_is_no_wait(service: Any, spec: MakeSpec, hours: list[float]) -> None:
    """Nobody is to be called for what the project's policy wants."""
    service.launcher.gpus = 1
    with service.state.write() as tx:
        tx.set_limits("project", TrainingLimits(version=1, gpu_seconds_budget=60.0))
    service.start(spec())
    service.pass_()
    service.pass_()
    hours[0] = 1.0
    service.pass_()
    hours[0] = 3.0
    assert "waits for GPU time" in service.get("run-1").reason
    assert 0 == scrape(service.state)["training_queue_wait_seconds", ""]


def test_the_newest_success_tells_its_dice(service: Any, spec: MakeSpec) -> None:
    """The mean over held-out cases by organ; an organ whose Dice is not defined in any case is left out."""
    service.start(spec())
    service.pass_()
    service.succeed(spec(), 1)
    service.pass_()
    told = scrape(service.state)
    assert 0.9 == pytest.approx(told["model_validation_dice", "liver"])
    assert ("model_validation_dice", "spleen") not in told
    assert (1, 0) == (told["training_runs", "succeeded"], told["training_queue_wait_seconds", ""])


def test_the_epoch_is_the_running_runs(service: Any, spec: MakeSpec) -> None:
    """What its process reported last."""
    service.start(spec())
    service.pass_()
    service.write("run-1", 1, "metrics/000001", {"phase": "train", "step": 7, "steps": 10, "epoch": 2, "epochs": 3})
    service.pass_()
    assert 2 == scrape(service.state)["training_epoch", ""]
