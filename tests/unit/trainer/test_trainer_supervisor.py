"""How the supervisor takes runs from queued to their end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import sqlalchemy as sa
from rekindle.errors import DependencyUnavailable
from rekindle.vocabulary import RunState
from rekindle_servicekit.objects import Objects
from rekindle_trainer.domain.runs import AttemptState
from rekindle_trainer.domain.spec import RunSpec, parse_spec
from rekindle_trainer.ports import ProcessStatus
from rekindle_trainer.state import rows
from rekindle_trainer.supervisor import Supervisor
from trainer_runs import KILLED, MakeSpec, attempt_of


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


def test_a_spec_is_read_once_however_often_its_run_is_looked_at(
    service: Any, spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may name thousands of examples; steps of the run neither parse it again nor write it again."""
    parsed: list[bytes] = []
    monkeypatch.setattr(rows, "parse_spec", lambda data: parsed.append(data) or parse_spec(data))
    rows._spec.cache_clear()
    service.start(spec("run-of-its-own"))
    written: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        written.append(statement)

    sa.event.listen(service.state.engine, "before_cursor_execute", note)
    for _ in range(5):
        service.pass_()
    sa.event.remove(service.state.engine, "before_cursor_execute", note)
    assert RunState.RUNNING is service.get("run-of-its-own").state
    assert 1 == len(parsed)
    assert [each for each in written if each.startswith("UPDATE runs")]
    assert not [each for each in written if each.startswith("UPDATE runs") and "spec=" in each]


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
