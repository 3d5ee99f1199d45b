"""How runs keep to their project's window and budget."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from rekindle.errors import InvalidInput
from rekindle.vocabulary import RunState
from rekindle_servicekit import database
from rekindle_trainer.domain.limits import TrainingLimits
from rekindle_trainer.domain.retry import RetryPolicy
from rekindle_trainer.domain.windows import OpeningTimes
from rekindle_trainer.ports import ProcessStatus
from rekindle_trainer.usecases import runs
from trainer_runs import MakeSpec

NIGHT = OpeningTimes(start="20:00", end="06:00", time_zone="Europe/Berlin")
ANY_TIME = replace(NIGHT, end="20:00")


class Clock:
    """The database's clock, as a test sets it; it begins at noon of Berlin's winter."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 14, 11, tzinfo=UTC)

    def go_on(self, **by: float) -> None:
        self.now += timedelta(**by)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Under every transaction."""
    clock = Clock()
    monkeypatch.setattr(database, "database_now", lambda _: clock.now)
    return clock


def limit(service: Any, version: int = 1, project_id: str = "project", **limits: Any) -> TrainingLimits:
    with service.state.write() as uow:
        runs.set_training_limits(uow, project_id, TrainingLimits(version=version, **limits))
        return uow.find_limits(project_id)


def report(service: Any) -> runs.LimitsReport:
    with service.state.read() as uow:
        return runs.get_training_limits(uow, "project")


def test_a_run_waits_for_its_window_and_says_so(service: Any, spec: MakeSpec, clock: Clock) -> None:
    """At noon it is not started and names the opening; at 20:00 of its clock it is."""
    limit(service, window=NIGHT)
    service.start(spec())
    service.pass_()
    run = service.get("run-1")
    assert (RunState.QUEUED, 0) == (run.state, run.attempts)
    assert "waits for its window: opens at 20:00 Europe/Berlin" == run.reason
    assert run.reason == report(service).held_reason
    clock.go_on(hours=7, minutes=59)
    service.pass_()
    assert RunState.QUEUED is service.get("run-1").state
    clock.go_on(minutes=1)
    service.pass_()
    assert (RunState.RUNNING, "") == (service.get("run-1").state, service.get("run-1").reason)
    assert "" == report(service).held_reason


def test_a_held_run_lets_others_go_before(service: Any, spec: MakeSpec, clock: Clock) -> None:
    """With one slot, an older run that waits for its window keeps no run of another project waiting."""
    limit(service, window=NIGHT)
    service.start(spec())
    service.start(spec("run-2", project_id="other"))
    service.pass_()
    assert [("run-2", 1)] == service.launcher.launched


def test_a_running_run_is_preempted_at_the_end_of_its_window(service: Any, spec: MakeSpec, clock: Clock) -> None:
    """Stopped for a checkpoint at 06:00, resumed at 20:00 as attempt 2, and no retry is spent."""
    service.supervisor.policy = RetryPolicy(max_retries=0)
    limit(service, window=NIGHT)
    clock.go_on(hours=9)
    service.start(spec())
    service.pass_()
    clock.go_on(hours=8, minutes=59)
    service.pass_()
    assert RunState.RUNNING is service.get("run-1").state
    clock.go_on(minutes=1)
    service.pass_()
    service.pass_()
    run = service.get("run-1")
    assert (RunState.PREEMPTED, 1, 0) == (run.state, run.attempts, run.failures)
    waits = "stopped after a checkpoint; waits for its window: opens at 20:00 Europe/Berlin"
    assert waits == run.reason
    assert ["run-1/1"] == service.launcher.stopped
    clock.go_on(hours=14)
    service.pass_()
    run = service.get("run-1")
    assert (RunState.RUNNING, 2, 0, "") == (run.state, run.attempts, run.failures, run.reason)
    service.succeed(spec(), 2)
    service.pass_()
    assert RunState.SUCCEEDED is service.get("run-1").state


def test_all_runs_are_told_to_stop_before_one_is_waited_for(
    service: Any, spec: MakeSpec, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three that train together as the window ends need the time of one checkpoint, not of three."""
    service.supervisor.max_concurrent_runs = 3
    clock.go_on(hours=9)
    limit(service, window=NIGHT)
    for name in ("run-1", "run-2", "run-3"):
        service.start(spec(name))
    service.pass_()
    order: list[str] = []
    stop = service.launcher.stop
    monkeypatch.setattr(service.launcher, "terminate", lambda handle: order.append("told"))
    monkeypatch.setattr(service.launcher, "poll", lambda handle: ProcessStatus(is_running=True))
    monkeypatch.setattr(service.launcher, "stop", lambda handle: order.append("waited for") or ended(stop, handle))
    clock.go_on(hours=9)
    service.pass_()
    assert ["told"] * 3 == order[:3]
    assert 3 == order.count("waited for")
    assert [RunState.PREEMPTED] * 3 == [service.get(name).state for name in ("run-1", "run-2", "run-3")]


def ended(stop: Callable[[str], Any], handle: str) -> ProcessStatus:
    """What a launcher answers once the process is gone."""
    stop(handle)
    return ProcessStatus(is_running=False, exit_code=143)


def test_a_process_that_is_killed_as_the_window_ends_spends_no_retry(
    service: Any, spec: MakeSpec, clock: Clock
) -> None:
    """One that takes too long for its checkpoint is killed, and goes on from the last one all the same."""
    service.supervisor.policy = RetryPolicy(max_retries=0)
    service.launcher.code_when_stopped = -9
    clock.go_on(hours=9)
    limit(service, window=NIGHT)
    service.start(spec())
    service.pass_()
    clock.go_on(hours=9)
    service.pass_()
    assert (RunState.PREEMPTED, 0) == (service.get("run-1").state, service.get("run-1").failures)


def test_a_result_at_the_last_moment_counts(service: Any, spec: MakeSpec, clock: Clock) -> None:
    """A process that succeeds while it is told to stop has succeeded; one that fails has failed."""
    clock.go_on(hours=9)
    limit(service, window=NIGHT)
    service.start(spec())
    service.pass_()
    service.succeed(spec(), 1)
    clock.go_on(hours=9)
    service.pass_()
    assert RunState.SUCCEEDED is service.get("run-1").state


def test_a_spent_budget_preempts_and_a_raised_one_goes_on(service: Any, spec: MakeSpec, clock: Clock) -> None:
    """2 GPUs under a budget of 600 GPU seconds run for 300 s; a budget of 1000 lets the run go on."""
    service.supervisor.policy = RetryPolicy(max_retries=0)
    service.launcher.gpus = 2
    limit(service, gpu_seconds_budget=600.0)
    service.start(spec())
    service.pass_()
    service.pass_()  # sees it at work
    clock.go_on(seconds=299)
    service.pass_()
    assert RunState.RUNNING is service.get("run-1").state
    assert 598 == service.get("run-1").gpu_seconds == report(service).gpu_seconds
    clock.go_on(seconds=1)
    service.pass_()
    clock.go_on(hours=1)
    service.pass_()
    run = service.get("run-1")
    assert (RunState.PREEMPTED, 0, 600) == (run.state, run.failures, run.gpu_seconds)
    assert "waits for GPU time: 600 of 600 GPU seconds are spent, raise the budget" in run.reason
    limit(service, 2, gpu_seconds_budget=1000.0)
    service.pass_()
    assert (RunState.RUNNING, 2) == (service.get("run-1").state, service.get("run-1").attempts)


def test_a_budget_is_of_all_runs_of_the_project(service: Any, spec: MakeSpec, clock: Clock) -> None:
    """What one run has spent is missing for the next; another project's runs are not touched."""
    service.launcher.gpus = 1
    limit(service, gpu_seconds_budget=100.0)
    service.start(spec())
    service.pass_()
    service.pass_()
    clock.go_on(seconds=100)
    service.succeed(spec(), 1)
    service.pass_()
    assert RunState.SUCCEEDED is service.get("run-1").state
    service.start(spec("run-2"))
    service.start(spec("run-3", project_id="other"))
    service.pass_()
    assert [("run-1", 1), ("run-3", 1)] == service.launcher.launched
    assert service.get("run-2").reason.startswith("waits for GPU time")


def test_waiting_for_a_machine_spends_nothing(service: Any, spec: MakeSpec, clock: Clock) -> None:
    """A Job whose pod finds no node for an hour has spent nothing; then seconds count from its beginning."""
    service.launcher.gpus = 4
    service.launcher.said["run-1/1"] = ProcessStatus(is_running=True, reason="waits for a node")
    service.start(spec())
    service.pass_()
    service.pass_()
    clock.go_on(hours=1)
    service.pass_()
    assert 0 == service.get("run-1").gpu_seconds
    del service.launcher.said["run-1/1"]
    service.pass_()
    clock.go_on(seconds=10)
    assert 40 == service.get("run-1").gpu_seconds


def test_waiting_again_spends_nothing(service: Any, spec: MakeSpec, clock: Clock) -> None:
    """A Job that its queue suspends after 60 s for an hour, and then works for 30 s more, has spent 90 s of 2 GPUs."""
    service.launcher.gpus = 2
    service.start(spec())
    service.pass_()
    service.pass_()
    clock.go_on(seconds=60)
    service.launcher.said["run-1/1"] = ProcessStatus(is_running=True, reason="waits for room in Kueue's queue gpus")
    service.pass_()
    assert "waits for room in Kueue's queue gpus" == service.get("run-1").reason
    clock.go_on(hours=1)
    service.pass_()
    assert 120 == service.get("run-1").gpu_seconds
    del service.launcher.said["run-1/1"]
    service.pass_()
    clock.go_on(seconds=30)
    service.succeed(spec(), 1)
    service.pass_()
    clock.go_on(hours=1)
    assert (RunState.SUCCEEDED, 180) == (service.get("run-1").state, service.get("run-1").gpu_seconds)


def test_a_machine_that_was_off_spends_nothing(service: Any, spec: MakeSpec, clock: Clock) -> None:
    """A process that nobody saw end, as the power went on Friday, counts until it was last seen and not to Monday."""
    service.launcher.gpus = 1
    service.start(spec())
    service.pass_()
    service.pass_()
    for _ in range(10):
        clock.go_on(seconds=20)
        service.pass_()
    clock.go_on(days=3)
    service.launcher.ended["run-1/1"] = None
    service.supervisor.advance("run-1")
    assert 200 == service.get("run-1").gpu_seconds


def test_work_while_the_service_was_away_counts(service: Any, spec: MakeSpec, clock: Clock) -> None:
    """A process that is still at work when the service comes back has worked meanwhile."""
    service.launcher.gpus = 1
    service.start(spec())
    service.pass_()
    service.pass_()
    clock.go_on(hours=2)
    service.pass_()
    service.launcher.ended["run-1/1"] = None
    clock.go_on(hours=5)
    service.supervisor.advance("run-1")
    assert 7200 == service.get("run-1").gpu_seconds


def test_what_the_cluster_saw_counts(service: Any, spec: MakeSpec, clock: Clock) -> None:
    """A Job that began and ended while nobody watched spends from its pod's beginning to its own end."""
    service.launcher.gpus = 4
    service.start(spec())
    service.pass_()
    began, ended = clock.now + timedelta(hours=2), clock.now + timedelta(hours=2, seconds=25)
    clock.go_on(hours=9)
    service.launcher.said["run-1/1"] = ProcessStatus(is_running=False, exit_code=1, began_at=began, ended_at=ended)
    service.pass_()
    assert 100 == service.get("run-1").gpu_seconds
    with service.state.read() as tx:
        attempt = tx.find_attempt("run-1", 1)
    assert (began, ended) == (attempt.began_at, attempt.ended_at)


def test_what_a_job_worked_before_it_was_watched_counts(service: Any, spec: MakeSpec, clock: Clock) -> None:
    """A service that comes back sees it at work, and since when; what it saw end an hour ago ended then."""
    service.launcher.gpus = 1
    service.start(spec())
    service.pass_()
    began = clock.now + timedelta(hours=1)
    clock.go_on(hours=3)
    service.launcher.said["run-1/1"] = ProcessStatus(is_running=True, began_at=began)
    service.pass_()
    clock.go_on(seconds=10)
    assert 7210 == service.get("run-1").gpu_seconds
    ended = clock.now
    clock.go_on(hours=1)
    service.launcher.said["run-1/1"] = ProcessStatus(is_running=False, exit_code=1, began_at=began, ended_at=ended)
    service.pass_()
    assert 7210 == service.get("run-1").gpu_seconds


def test_a_clock_that_is_wrong_spends_no_time_that_was_not(service: Any, spec: MakeSpec, clock: Clock) -> None:
    """Whatever a machine's clock says, no more than the time between claim and now."""
    service.launcher.gpus = 1
    service.start(spec())
    service.pass_()
    began = clock.now - timedelta(hours=1)
    clock.go_on(seconds=10)
    ended = clock.now + timedelta(hours=1)
    service.launcher.said["run-1/1"] = ProcessStatus(is_running=False, exit_code=1, began_at=began, ended_at=ended)
    service.pass_()
    assert 10 == service.get("run-1").gpu_seconds


def test_training_without_gpus_spends_nothing(service: Any, spec: MakeSpec, clock: Clock) -> None:
    """On CPUs a budget never ends a run."""
    limit(service, gpu_seconds_budget=1.0)
    service.start(spec())
    service.pass_()
    service.pass_()
    clock.go_on(days=1)
    service.pass_()
    assert (RunState.RUNNING, 0) == (service.get("run-1").state, service.get("run-1").gpu_seconds)


def test_the_newest_limits_hold(service: Any, spec: MakeSpec, clock: Clock) -> None:
    """An older version that comes late changes nothing, by itself or with a run; a run takes its project's along."""
    limit(service, 3, window=NIGHT)
    assert 3 == limit(service, 2).version
    service.start(spec(), TrainingLimits(version=1))
    assert (3, NIGHT) == (service.get("run-1").limits_version, report(service).limits.window)
    assert ANY_TIME == limit(service, 4, window=ANY_TIME).window
    assert "" == report(service).held_reason


def test_limits_that_cannot_be_leave_nothing_behind(service: Any, spec: MakeSpec) -> None:
    """Neither a run nor limits, and the field is named."""
    wrong = TrainingLimits(version=1, window=replace(NIGHT, time_zone="Mars/Olympus"))
    with pytest.raises(InvalidInput, match=r"limits\.window\.time_zone"):
        service.start(spec(), wrong)
    with pytest.raises(InvalidInput, match=r"limits\.version"):
        limit(service, 0)
    with service.state.read() as tx:
        assert ([], 0) == (tx.open_runs(), tx.find_limits("project").version)
