"""What callers of the trainer get."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from rekindle.errors import (
    AlreadyExists,
    DeadlineExceeded,
    DependencyUnavailable,
    IllegalTransition,
    InvalidInput,
    NotFound,
)
from rekindle.vocabulary import Example, Organ, OrganState, OrganStatus, RunState
from rekindle_servicekit.workers import Cancellation
from rekindle_trainer.domain.runs import Run
from rekindle_trainer.usecases import runs
from trainer_runs import MakeSpec


def cancel(service: Any, run_id: str, timeout_s: float | None = None) -> Run:
    with service.state.write() as uow:
        runs.request_cancel(uow, "project", run_id)
    return runs.await_cancelled(
        service.state, service.objects, service.supervisor.advance, Cancellation(timeout_s), "project", run_id
    )


def list_runs(service: Any, project_id: str = "project", behind: Run | None = None, limit: int = 2) -> list[Run]:
    before = None if behind is None else (behind.created_at, behind.run_id)
    with service.state.read() as uow:
        return runs.list_runs(uow, project_id, before=before, limit=limit)


def test_a_run_is_queued_with_its_snapshot(service: Any, spec: MakeSpec) -> None:
    """The answer holds state, reason, snapshot digest and who asked."""
    run = service.start(spec())
    assert (RunState.QUEUED, "waits to be started") == (run.state, run.reason)
    assert "loopback/local" == run.created_by
    reverse = spec("run-2", training=spec().training[::-1])
    assert run.snapshot_digest == service.start(reverse).snapshot_digest, "order and run id decide nothing"


def test_the_same_run_again_is_the_same_run(service: Any, spec: MakeSpec) -> None:
    """Also after it has begun, when its volumes are gone."""
    service.start(spec())
    service.pass_()
    service.objects.delete(f"canonical/{spec().training[0].image_digest}")
    run = service.start(spec())
    assert (RunState.RUNNING, 1) == (run.state, run.attempts)


def test_volumes_are_looked_for_many_at_a_time(service: Any, spec: MakeSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    """Six volumes of a store that answers only three questions together; each is asked for once."""
    meet, exists, asked = threading.Barrier(3), service.objects.exists, list[str]()

    def answer(key: str) -> bool:
        asked.append(key)
        meet.wait(timeout=10)
        return exists(key)

    monkeypatch.setattr(service.objects, "exists", answer)
    assert RunState.QUEUED is service.start(spec()).state
    assert (6, 6) == (len(asked), len(set(asked)))


@pytest.mark.parametrize("changes", [{"seed": 8}, {"project_id": "other"}, {"heldout": ()}])
def test_a_run_id_stands_for_one_spec(service: Any, spec: MakeSpec, changes: dict[str, Any]) -> None:
    """Other content under the same run id is refused."""
    service.start(spec())
    with pytest.raises(AlreadyExists, match="another spec"):
        service.start(spec(**changes))


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"run_id": "../x"}, "run_id"),
        ({"project_id": ""}, "project_id"),
        ({"kind": ""}, "spec.kind"),
        ({"preset": "huge"}, "spec.preset"),
        ({"preset": "cpu", "recipe": "paper"}, "spec.recipe"),
        ({"seed": -1}, "spec.seed"),
        ({"modality": ""}, "spec.modality"),
        ({"organs": ()}, "spec.organs"),
        ({"organs": (Organ(id="liver", label_value=256),)}, "spec.organs[0].label_value"),
        (
            {"organs": (Organ(id="liver", label_value=1), Organ(id="spleen", label_value=1))},
            "spec.organs[1].label_value",
        ),
        ({"organs": (Organ(id="Liver", label_value=1),)}, "spec.organs[0].id"),
        ({"training": ()}, "spec.training"),
        ({"initial_weights": "abc"}, "spec.initial_weights_digest"),
        ({"initial_weights": "0" * 64}, "spec.initial_weights_digest"),
        ({"current_package": "0" * 64}, "spec.current_package_digest"),
    ],
)
def test_a_wrong_field_is_named(service: Any, spec: MakeSpec, changes: dict[str, Any], field: str) -> None:
    """Each rule is a violation of its field, and nothing is queued."""
    with pytest.raises(InvalidInput) as caught:
        service.start(spec(**changes))
    assert field in {violation.field for violation in caught.value.violations}
    assert [] == list_runs(service)


def test_each_volume_that_is_missing_is_named(service: Any, spec: MakeSpec, example: Callable[..., Example]) -> None:
    """Image and mask of an example that the object store does not have."""
    wrong = spec(training=(example("a"), example("unknown")), heldout=(example("missing"),))
    with pytest.raises(InvalidInput) as caught:
        service.start(wrong)
    assert [
        "spec.training[1].image_digest",
        "spec.training[1].mask_digest",
        "spec.heldout[0].image_digest",
        "spec.heldout[0].mask_digest",
    ] == [violation.field for violation in caught.value.violations]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"source": ""}, "spec.training[0].source"),
        ({"modality": ""}, "spec.training[0].modality"),
        ({"mask_digest": "x"}, "spec.training[0].mask_digest"),
        (
            {"organ_states": (OrganState(organ_id="kidney", status=OrganStatus.EDITED),)},
            "spec.training[0].organ_states",
        ),
        ({"organ_states": (OrganState(organ_id="liver", status=""),)}, "spec.training[0].organ_states"),
    ],
)
def test_a_wrong_example_is_named(
    service: Any, spec: MakeSpec, example: Callable[..., Example], changes: dict[str, Any], field: str
) -> None:
    """Source, modality, digests and organ states of every example are checked."""
    with pytest.raises(InvalidInput) as caught:
        service.start(spec(training=(replace(example("a"), **changes),)))
    assert [field] == [violation.field for violation in caught.value.violations]


def test_held_out_images_never_train(service: Any, spec: MakeSpec, example: Callable[..., Example]) -> None:
    """An image on both sides is refused."""
    with pytest.raises(InvalidInput, match="in the training set too"):
        service.start(spec(heldout=(example("a"),)))


def test_an_igniter_needs_the_targets_modality(service: Any, spec: MakeSpec, example: Callable[..., Example]) -> None:
    """Trained on MR alone it could not label CT."""
    only_mr = replace(example("a"), modality="MR")
    with pytest.raises(InvalidInput, match="needs at least one CT example"):
        service.start(spec(kind="igniter", training=(only_mr,)))


def test_a_run_belongs_to_its_project(service: Any, spec: MakeSpec) -> None:
    """Asked for in another project it does not exist."""
    service.start(spec())
    with pytest.raises(NotFound):
        service.get("run-1", "other")


def test_runs_are_listed_newest_first_page_by_page(service: Any, spec: MakeSpec) -> None:
    """Pages join without gap or overlap, also when a newer run comes in between; other projects stay out."""
    for number in range(1, 6):
        service.start(spec(f"run-{number}"))
    service.start(spec("run-x", project_id="other"))
    first = list_runs(service)
    service.start(spec("run-6"))
    second = list_runs(service, behind=first[-1])
    third = list_runs(service, behind=second[-1])
    names = [[run.run_id for run in page] for page in (first, second, third)]
    assert [["run-5", "run-4"], ["run-3", "run-2"], ["run-1"]] == names


def test_a_waiting_run_is_cancelled_at_once(service: Any, spec: MakeSpec) -> None:
    """It never starts."""
    service.start(spec())
    assert RunState.CANCELLED is cancel(service, "run-1").state
    service.pass_()
    assert [] == service.launcher.launched


def test_cancelling_stops_the_process_first(service: Any, spec: MakeSpec) -> None:
    """The answer CANCELLED comes when the process is gone, and frees the slot."""
    service.start(spec())
    service.start(spec("run-2"))
    service.pass_()
    run = cancel(service, "run-1")
    assert (RunState.CANCELLED, ["run-1/1"]) == (run.state, service.launcher.stopped)
    service.pass_()
    assert ("run-2", 1) == service.launcher.launched[-1]


def test_a_cancelled_run_stays_cancelled_whatever_its_process_left(service: Any, spec: MakeSpec) -> None:
    """A result that comes after the request is not published."""
    service.start(spec())
    service.pass_()
    with service.state.write() as tx:
        tx.update_run(tx.find_run("run-1").request_cancel())
    service.succeed(spec(), 1)
    service.pass_()
    run = service.get("run-1")
    assert (RunState.CANCELLED, None) == (run.state, run.result)


def test_an_ended_run_is_not_cancelled(service: Any, spec: MakeSpec) -> None:
    """It stays as it is."""
    service.start(spec())
    service.pass_()
    service.succeed(spec(), 1)
    service.pass_()
    with pytest.raises(IllegalTransition, match="has ended"):
        cancel(service, "run-1")
    assert RunState.SUCCEEDED is service.get("run-1").state


def test_a_cancel_whose_time_ran_out_is_carried_out_later(service: Any, spec: MakeSpec) -> None:
    """The request stays: here the process was not even found yet when the caller gave up."""
    service.start(spec())
    service.supervisor._claim_waiting()
    with pytest.raises(DeadlineExceeded):
        cancel(service, "run-1", timeout_s=0.0)
    service.launcher.findable.add("run-1/1")
    service.pass_()
    assert RunState.CANCELLED is service.get("run-1").state
    assert ["run-1/1"] == service.launcher.stopped


def test_news_go_on_from_a_cursor(service: Any, spec: MakeSpec) -> None:
    """Only metrics after the cursor, with the run as of the same moment."""
    service.start(spec())
    service.pass_()
    for number in (1, 2, 3):
        service.write("run-1", 1, f"metrics/{number:06d}", {"phase": "seed", "step": number})
    service.pass_()
    with service.state.read() as uow:
        news = runs.read_news(uow, "project", "run-1", 1)
    assert ([2, 3], RunState.RUNNING) == ([metric.cursor for metric in news.metrics], news.run.state)


def test_cancelling_a_run_that_waits_removes_its_checkpoints(service: Any, spec: MakeSpec) -> None:
    """At once, as nobody looks after it any more; also where the store is away it is cancelled."""
    for name in ("run-1", "run-2"):
        service.start(spec(name))
    service.supervisor.max_concurrent_runs = 2
    service.pass_()
    service.supervisor.max_concurrent_runs = 0
    for name in ("run-1", "run-2"):
        service.objects.put(f"runs/{name}/1/checkpoint/00000004/state.json", b"{}")
        service.launcher.ended[f"{name}/1"] = 143
    service.pass_()
    assert RunState.PREEMPTED is service.get("run-1").state
    assert RunState.CANCELLED is cancel(service, "run-1").state
    assert ["runs/run-2/1/checkpoint/00000004/state.json"] == [
        key for key in service.objects.list("runs/") if "checkpoint" in key
    ]

    def away(prefix: str) -> Any:
        raise DependencyUnavailable("the object store cannot be reached")

    service.objects.list = away
    assert RunState.CANCELLED is cancel(service, "run-2").state
