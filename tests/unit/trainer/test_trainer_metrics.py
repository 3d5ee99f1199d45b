"""What Prometheus is told of runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry
from rekindle_servicekit.metrics import StateCollector
from rekindle_trainer.adapters.prometheus import run_metrics
from rekindle_trainer.spec import RunSpec

MakeSpec = Callable[..., RunSpec]


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
