"""What passes by itself: services that refuse the scheduler, outages while cases are predicted, steps that fail."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest
from rekindle.errors import DependencyUnavailable, InvalidInput, RekindleError
from rekindle_scheduler import reconciler
from rekindle_scheduler.actions import predictions
from rekindle_scheduler.actions.services import Services, read_view
from rekindle_scheduler.adapters.channels import Remote
from rekindle_scheduler.domain import steps
from rekindle_scheduler.domain.ids import CaseId, ModelVersionId, ProjectId, VolumeId
from rekindle_scheduler.domain.reconcile import working_round
from rekindle_scheduler.domain.records import PredictionTask
from rekindle_scheduler.ports import PredictionOutcome
from rekindle_scheduler.reconciler import Reconciler
from rekindle_servicekit.bell import Bell
from rekindle_servicekit.workers import Workers
from scheduler_ports import Bench, coarse_label

NEXT = ModelVersionId("model-2")


class Refusal(grpc.RpcError, grpc.Call):
    """A call that ended with a status, as a channel raises it."""

    def __init__(self, code: grpc.StatusCode) -> None:
        self._code = code

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return "the token is not known"

    def trailing_metadata(self) -> Any:
        return ()

    def initial_metadata(self) -> Any:
        return ()

    def is_active(self) -> bool:
        return False

    def time_remaining(self) -> None:
        return None

    def cancel(self) -> None: ...

    def add_callback(self, callback: Any) -> bool:
        return False


def called(code: grpc.StatusCode) -> RekindleError:
    """What becomes of a call that ends so."""

    def method(request: Any, timeout: float) -> Any:
        raise Refusal(code)

    with pytest.raises(RekindleError) as caught:
        Remote("trainer").call(method, None, 1.0)
    return caught.value


@pytest.mark.parametrize("code", [grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED])
def test_a_service_that_refuses_the_scheduler_is_waited_for(code: grpc.StatusCode) -> None:
    """Tokens are renewed here and there at different moments: no project stalls, and no caller takes it for his own."""
    error = called(code)
    assert (DependencyUnavailable, "TRAINER_REFUSES") == (type(error), error.reason)
    assert "the token is not known" in error.message
    assert "peer_token_file" in error.message


def test_what_a_service_says_of_a_request_stays_what_it_is() -> None:
    """A request that is wrong is wrong, however often it is sent."""
    assert InvalidInput is type(called(grpc.StatusCode.INVALID_ARGUMENT))


class FakeInference:
    """Is away, or has one outcome for every volume."""

    def __init__(self) -> None:
        self.is_away = True

    def model(self, project_id: ProjectId, version: ModelVersionId) -> None:
        if self.is_away:
            raise DependencyUnavailable("inference is away")

    def predict(self, project_id: ProjectId, version: ModelVersionId, volume_ids: Sequence[VolumeId]) -> Iterator[Any]:
        if self.is_away:
            raise DependencyUnavailable("inference is away")
        for volume_id in volume_ids:
            yield PredictionOutcome(volume_id=volume_id, coarse_label=None, failure="out of memory")


def make_world(bench: Bench, inference: Any = None) -> Services:
    nobody: Any = None
    return Services(state=bench.store, inference=inference, trainer=nobody)


def test_an_outage_spends_no_attempt_of_a_prediction(tmp_path: Path) -> None:
    """Ten calls in vain are forgotten; of what inference says of the case itself the third failure is the last."""
    bench, inference = Bench(tmp_path), FakeInference()
    (case_id,) = bench.annotating("v1")
    with bench.store.write() as uow:
        uow.predictions.enqueue(
            [PredictionTask(project_id=bench.project_id, case_id=case_id, model_version_id=NEXT, rank=0, in_pool=True)]
        )
    services, step = make_world(bench, inference), steps.PredictBatch(model_version_id=NEXT)
    view = read_view(bench.store, bench.project_id)
    for _ in range(10):
        with pytest.raises(DependencyUnavailable):
            predictions.predict_batch(services, view, step)
    inference.is_away = False
    moved = [predictions.predict_batch(services, view, step) for _ in range(3)]
    assert [False, False, True] == moved
    with bench.store.read() as uow:
        events = uow.events.after(bench.project_id, 0, limit=99)
    assert ["prediction-failed"] == [event.kind for event in events if event.kind.startswith("prediction")]


class Fragile:
    """Predicts each volume, but breaks down at some."""

    def __init__(self, *deadly: str) -> None:
        self.deadly = deadly
        self.begun: list[str] = []

    def model(self, project_id: ProjectId, version: ModelVersionId) -> None: ...

    def predict(self, project_id: ProjectId, version: ModelVersionId, volume_ids: Sequence[VolumeId]) -> Iterator[Any]:
        for volume_id in volume_ids:
            self.begun.append(volume_id)
            if volume_id in self.deadly:
                raise DependencyUnavailable("connection reset")
            label = replace(coarse_label(CaseId(volume_id)), model_version_id=version)
            yield PredictionOutcome(volume_id=volume_id, coarse_label=label)


def test_a_case_at_which_inference_breaks_down_is_given_up(tmp_path: Path) -> None:
    """It breaks off one call in company and three alone; the others are predicted, and people are told why."""
    bench, inference = Bench(tmp_path), Fragile("v2")
    case_ids = bench.annotating("v1", "v2", "v3", "v4")
    with bench.store.write() as uow:
        uow.predictions.enqueue(
            [
                PredictionTask(
                    project_id=bench.project_id, case_id=case_id, model_version_id=NEXT, rank=rank, in_pool=True
                )
                for rank, case_id in enumerate(case_ids)
            ]
        )
    services, step = make_world(bench, inference), steps.PredictBatch(model_version_id=NEXT)
    view = read_view(bench.store, bench.project_id)
    for _ in range(10):
        with suppress(DependencyUnavailable):
            predictions.predict_batch(services, view, step)
    assert ["v1", "v2", "v2", "v2", "v2", "v3", "v4"] == inference.begun
    with bench.store.read() as uow:
        labels = uow.predictions.labels(bench.project_id)
        (event,) = (each for each in uow.events.after(bench.project_id, 0, limit=99) if "predict" in each.kind)
    assert {case_ids[0], case_ids[2], case_ids[3]} == {case_id for case_id, version in labels if version == NEXT}
    assert (case_ids[1], True) == (event.details["case_id"], "inference broke off" in event.message)
    assert set() == services.one_by_one


def reconcile(bench: Bench, run_pass: Any, seconds: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """The reconciler for some time, with a bell that never rests, and passes that are the test's."""
    monkeypatch.setattr(reconciler, "run_pass", run_pass)
    workers, bell = Workers(max_threads=2), Bell()

    async def scene() -> None:
        stopping = asyncio.Event()
        loop = asyncio.create_task(Reconciler(make_world(bench), bell, workers, interval_s=0.01).run(stopping))
        for _ in range(round(seconds / 0.01)):
            bell.ring()
            await asyncio.sleep(0.01)
        stopping.set()
        await loop

    try:
        asyncio.run(scene())
    finally:
        workers.close()


def test_a_step_that_fails_unforeseen_is_told_in_the_round(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not only in the log: whoever watches the round learns where to look."""
    bench = Bench(tmp_path)
    bench.annotating("v1")

    def run_pass(services: Services, project_id: ProjectId) -> bool:
        raise KeyError(project_id)

    reconcile(bench, run_pass, 0.1, monkeypatch)
    with bench.store.read() as uow:
        working = working_round(tuple(uow.rounds.all(bench.project_id)))
    assert working is not None
    assert "see the scheduler's log" in working.reason


def test_a_long_look_in_vain_is_not_repeated_at_every_ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look that takes 0.25 s is followed by 2.25 s of rest, however many annotators ring."""
    bench, looks = Bench(tmp_path), list[float]()
    bench.annotating("v1")

    def run_pass(services: Services, project_id: ProjectId) -> bool:
        looks.append(0.0)
        reconciler.time.sleep(0.25)
        return False

    reconcile(bench, run_pass, 0.6, monkeypatch)
    assert 1 == len(looks)
