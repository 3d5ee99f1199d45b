"""What Prometheus is told of runs, read from their state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import fmean

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from rekindle.vocabulary import RunState

from rekindle_trainer.domain.runs import Run
from rekindle_trainer.state import State, UnitOfWork


def run_metrics(state: State) -> Iterable[Metric]:
    """Runs by state, the longest wait for a process, the epochs of those that run, the newest Dice."""
    with state.read() as uow:
        counts, open_runs, newest = uow.count_runs(), uow.open_runs(), uow.newest_success()
        waits = [_wait_s(uow, run) for run in open_runs]
    by_state = GaugeMetricFamily("rekindle_training_runs", "Training runs by state", labels=["state"])
    for run_state in RunState:
        by_state.add_metric([run_state.value], counts.get(run_state, 0))
    wait = GaugeMetricFamily(
        "rekindle_training_queue_wait_seconds",
        "Longest time that a run that may run has had no process at work; 0 where none waits",
        value=max(waits, default=0.0),
    )
    return [by_state, wait, _epochs(open_runs), _dice(newest)]


def _wait_s(uow: UnitOfWork, run: Run) -> float:
    """For its turn or a machine. One that waits for its window or a larger budget waits as its project wants."""
    limits = uow.find_limits(run.project_id)
    if run.waits_since is None or limits.held_reason(uow.gpu_seconds(run.project_id), uow.now):
        return 0.0
    opened_at = None if limits.window is None else limits.window.opened_at(uow.now)
    since = run.waits_since if opened_at is None else max(run.waits_since, opened_at)
    return max(0.0, (uow.now - since).total_seconds())


def _epochs(open_runs: Sequence[Run]) -> Metric:
    """The furthest running one's: an id as a label would make a series for each run."""
    running = [run.latest.record.epoch for run in open_runs if run.state is RunState.RUNNING and run.latest is not None]
    return GaugeMetricFamily(
        "rekindle_training_epoch",
        "Epoch of the furthest run under way; 0 where none runs",
        value=max(running, default=0),
    )


def _dice(newest: Run | None) -> Metric:
    dice = GaugeMetricFamily(
        "rekindle_model_validation_dice",
        "Mean Dice on held-out cases of the run that succeeded last, by organ",
        labels=["organ"],
    )
    by_organ: dict[str, list[float]] = {}
    for case in newest.result.candidate if newest is not None and newest.result is not None else ():
        for organ in case.organs:
            if organ.dice is not None:
                by_organ.setdefault(organ.organ_id, []).append(organ.dice)
    for organ_id, values in sorted(by_organ.items()):
        dice.add_metric([organ_id], fmean(values))
    return dice
