"""Requests that come twice, and watches, through the trainer's servicer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from rekindle.api.common.v1 import common_pb2
from rekindle.api.trainer.v1 import trainer_pb2 as pb
from rekindle.convert import to_proto
from rekindle.errors import AlreadyExists, NotFound
from rekindle.vocabulary import RunState
from rekindle_servicekit import context
from rekindle_servicekit.bell import Bell
from rekindle_servicekit.principal import Principal
from rekindle_servicekit.workers import Workers
from rekindle_trainer.domain.presets import CATALOGUE
from rekindle_trainer.domain.spec import RunSpec
from rekindle_trainer.grpc.servicer import Backend, TrainerServicer
from trainer_runs import MakeSpec

SCHEDULER = Principal(issuer="loopback", subject="scheduler", display_name="The scheduler")
Ask = Callable[[Callable[[TrainerServicer], Coroutine[Any, Any, Any]]], Any]


@pytest.fixture
def ask(service: Any) -> Any:
    """Call the servicer over the service's state as the scheduler."""
    workers = Workers(max_threads=2)

    def call(method: Callable[[TrainerServicer], Coroutine[Any, Any, Any]]) -> Any:
        async def main() -> Any:
            backend = Backend(
                state=service.state,
                objects=service.objects,
                catalogue=CATALOGUE,
                advance=service.supervisor.advance,
                workers=workers,
                bell=Bell(),
                stopping=asyncio.Event(),
            )
            return await method(TrainerServicer(backend))

        with context.bind(principal=SCHEDULER):
            return asyncio.run(main())

    yield call
    workers.close()


def start_request(spec: RunSpec, request_id: str = "r") -> pb.StartRunRequest:
    message = to_proto(
        spec,
        pb.RunSpec,
        initial_weights_digest=spec.initial_weights,
        current_package_digest=spec.current_package,
        keep_all_components=not spec.largest_component,
    )
    return pb.StartRunRequest(request_id=request_id, project_id=spec.project_id, run_id=spec.run_id, spec=message)


def test_a_start_that_comes_again_gets_the_run_as_it_is(service: Any, spec: MakeSpec, ask: Ask) -> None:
    """A retry starts nothing; it is answered with the run's state of now, its examples included."""
    request = start_request(spec())
    first = ask(lambda servicer: servicer.StartRun(request, None))
    service.pass_()
    service.objects.delete(f"canonical/{spec().training[0].image_digest}")
    again = ask(lambda servicer: servicer.StartRun(request, None))
    assert (pb.RUN_STATE_QUEUED, pb.RUN_STATE_RUNNING) == (first.run.state, again.run.state)
    assert request.spec.organs == again.run.spec.organs
    assert len(request.spec.training) == len(again.run.spec.training)


def test_a_request_id_stands_for_one_request(service: Any, spec: MakeSpec, ask: Ask) -> None:
    """The id of an answered request with another run is refused, and nothing is queued."""
    ask(lambda servicer: servicer.StartRun(start_request(spec()), None))
    with pytest.raises(AlreadyExists) as caught:
        ask(lambda servicer: servicer.StartRun(start_request(spec("run-2")), None))
    assert "REQUEST_ID_REUSED" == caught.value.reason
    with pytest.raises(NotFound):
        service.get("run-2")


def test_the_answer_that_is_kept_is_small(service: Any, spec: MakeSpec, ask: Ask) -> None:
    """A run's examples are not stored a second time beside the request."""
    ask(lambda servicer: servicer.StartRun(start_request(spec()), None))
    with service.state.engine.connect() as connection:
        (size,) = connection.exec_driver_sql("SELECT length(response) FROM requests").one()
    assert 0 == size


def test_a_cancel_that_comes_again_is_answered(service: Any, spec: MakeSpec, ask: Ask) -> None:
    """A retry under the same id says that the run is cancelled, though it has ended by then."""
    service.start(spec())
    request = pb.CancelRunRequest(request_id="c", project_id="project", run_id="run-1")
    first, again = (ask(lambda servicer: servicer.CancelRun(request, None)) for _ in range(2))
    assert first == again
    assert RunState.CANCELLED is service.get("run-1").state


def test_a_purge_that_comes_again_answers_what_the_first_one_did(
    service: Any, spec: MakeSpec, example: Any, ask: Ask
) -> None:
    """Though the runs do not show it any more; what a process wrote meanwhile is redacted then."""
    service.start(spec())
    erased = example("a")
    request = pb.PurgeExamplesRequest(
        request_id="p", project_id="project", digests=[erased.image_digest, erased.mask_digest]
    )
    first = ask(lambda servicer: servicer.PurgeExamples(request, None))
    service.write("run-1", 3, "failure", {"reason": "X", "message": erased.mask_digest})
    again = ask(lambda servicer: servicer.PurgeExamples(request, None))
    assert first == again
    assert ["run-1"] == first.run_ids
    assert erased.mask_digest.encode() not in service.objects.get("runs/run-1/3/failure.json")
    other = pb.PurgeExamplesRequest(request_id="p", project_id="project", digests=["0" * 64])
    with pytest.raises(AlreadyExists):
        ask(lambda servicer: servicer.PurgeExamples(other, None))


def test_limits_that_come_again_do_not_undo_newer_ones(service: Any, ask: Ask) -> None:
    """A late retry of older limits changes nothing, and is told which limits hold."""

    def limit(version: int) -> pb.SetTrainingLimitsResponse:
        window = common_pb2.TrainingWindow(
            start="20:00", end="06:00", time_zone="UTC", days=[common_pb2.WEEKDAY_SUNDAY, common_pb2.WEEKDAY_MONDAY]
        )
        limits = pb.TrainingLimits(version=version, window=window)
        request = pb.SetTrainingLimitsRequest(request_id=f"l{version}", project_id="project", limits=limits)
        return ask(lambda servicer: servicer.SetTrainingLimits(request, None))

    first, newer, again = limit(1), limit(2), limit(1)
    assert (1, newer) == (first.limits.version, again)
    held = ask(lambda servicer: servicer.GetTrainingLimits(pb.GetTrainingLimitsRequest(project_id="project"), None))
    assert newer.limits == held.limits
    assert [common_pb2.WEEKDAY_MONDAY, common_pb2.WEEKDAY_SUNDAY] == held.limits.window.days
