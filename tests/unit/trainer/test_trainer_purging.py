"""Erased volumes are struck out of runs; what has learnt from them is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from rekindle.errors import InvalidInput
from rekindle.vocabulary import Example, RunState
from rekindle_servicekit import database
from rekindle_servicekit.principal import Principal
from rekindle_trainer.domain.spec import RunSpec
from rekindle_trainer.usecases.purges import PurgeReport, purge_examples, redact_outputs
from trainer_runs import MakeSpec

PRINCIPAL = Principal(issuer="loopback", subject="scheduler", display_name="The scheduler")


def purge(service: Any, *examples: Example, project: str = "project") -> PurgeReport:
    digests = [digest for example in examples for digest in (example.image_digest, example.mask_digest)]
    with service.state.write() as uow:
        report = purge_examples(uow, project, digests)
    redact_outputs(service.state, service.objects, project, digests)
    return report


def finish(service: Any, spec: RunSpec, attempt: int = 1) -> None:
    """Start a run and let it succeed."""
    service.start(spec)
    service.pass_()
    service.succeed(spec, attempt)
    service.pass_()
    assert service.get(spec.run_id).state is RunState.SUCCEEDED


def mentions(service: Any, digest: str) -> list[str]:
    """Where a digest is still found: tables and objects."""
    found = [key for key in service.objects.list("runs/") if digest.encode() in service.objects.get(key)]
    with database.read(service.state.engine) as connection:
        for table in ("runs", "attempts", "metrics", "requests"):
            rows = connection.exec_driver_sql(f"SELECT * FROM {table}").all()
            found += [
                table for row in rows if digest in str([bytes(c) if isinstance(c, memoryview) else c for c in row])
            ]
    return found


def test_no_row_and_no_object_names_an_erased_volume(service: Any, spec: MakeSpec, example: Any) -> None:
    """Spec, result and reasons are struck; the run, its snapshot's digest and the other examples stay."""
    finish(service, spec())
    before = service.get("run-1")
    service.write("run-1", 2, "failure", {"reason": "X", "message": f"lacks {example('a').image_digest}"})
    assert mentions(service, example("a").image_digest)

    report = purge(service, example("a"))

    assert report == PurgeReport(snapshot_digests=(before.snapshot_digest,), run_ids=("run-1",))
    for digest in (example("a").image_digest, example("a").mask_digest):
        assert mentions(service, digest) == []
    after = service.get("run-1")
    assert (after.snapshot_digest, after.state, after.result.weights_digest) == (
        before.snapshot_digest,
        RunState.SUCCEEDED,
        before.result.weights_digest,
    )
    kept = {each.image_digest for each in after.spec.training}
    assert example("b").image_digest in kept
    assert len(kept) == 2


def test_held_out_volumes_teach_nothing(service: Any, spec: MakeSpec, example: Any) -> None:
    """They are struck all the same."""
    finish(service, spec())

    report = purge(service, example("c"))

    assert report == PurgeReport(snapshot_digests=(), run_ids=())
    assert mentions(service, example("c").image_digest) == []


def test_runs_that_began_with_taught_weights_have_learnt_too(service: Any, spec: MakeSpec, example: Any) -> None:
    """However far back; a run that began with other weights has not."""
    finish(service, spec("run-1"))
    weights = service.get("run-1").result.weights_digest
    later = {"training": (example("b"),), "heldout": ()}
    finish(service, spec("run-2", initial_weights=weights, **later))
    finish(service, spec("run-3", seed=9, **later))

    report = purge(service, example("a"))

    assert set(report.run_ids) == {"run-1", "run-2"}
    assert service.get("run-3").snapshot_digest == service.get("run-2").snapshot_digest


@pytest.mark.parametrize("launched", [False, True])
def test_runs_under_way_are_cancelled(service: Any, spec: MakeSpec, example: Any, launched: bool) -> None:
    """A queued one at once, a running one with its process; a run without the volume goes on."""
    service.start(spec())
    if launched:
        service.pass_()
    service.start(spec("run-2", training=(example("b"),), heldout=()))

    purge(service, example("a"))
    service.pass_()
    service.pass_()

    assert service.get("run-1").state is RunState.CANCELLED
    assert bool(service.launcher.stopped) is launched
    assert service.get("run-2").state in (RunState.QUEUED, RunState.RUNNING)


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_purge_that_is_killed_between_two_steps_loses_no_text(
    service: Any, spec: MakeSpec, example: Any, monkeypatch: pytest.MonkeyPatch, steps: int
) -> None:
    """The next one completes it: the run's result is there, and struck."""
    finish(service, spec())
    key = "runs/run-1/1/result.json"
    before = len(service.objects.get(key))
    left = [steps]
    for name in ("put", "delete"):
        monkeypatch.setattr(service.objects, name, _until_killed(getattr(service.objects, name), left))
    with pytest.raises(KeyboardInterrupt):
        purge(service, example("a"))
    monkeypatch.undo()

    purge(service, example("a"))

    assert len(service.objects.get(key)) == before
    assert mentions(service, example("a").image_digest) == []
    assert [each for each in service.objects.list("runs/") if each.endswith(".struck")] == []


def _until_killed(step: Callable[..., None], left: list[int]) -> Callable[..., None]:
    def run(*arguments: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        step(*arguments)

    return run


def test_a_damaged_text_holds_no_purge_up(service: Any, spec: MakeSpec, example: Any) -> None:
    """What cannot be read as text is struck all the same."""
    finish(service, spec())
    service.objects.put("runs/run-1/9/failure.json", b"\xff" + example("a").mask_digest.encode())

    purge(service, example("a"))

    assert mentions(service, example("a").mask_digest) == []


def test_other_projects_are_left_alone(service: Any, spec: MakeSpec, example: Any) -> None:
    """A digest of this project's erased volume may be another project's living one."""
    finish(service, spec())

    assert purge(service, example("a"), project="other").run_ids == ()
    assert mentions(service, example("a").image_digest)


@pytest.mark.parametrize(("digests", "words"), [(["../x"], "SHA-256"), (["0" * 64] * 10_001, "at most 10000")])
def test_wrong_digests_name_the_field(service: Any, digests: list[str], words: str) -> None:
    """Nothing is touched."""
    with pytest.raises(InvalidInput) as caught, service.state.write() as uow:
        purge_examples(uow, "p", digests)
    assert caught.value.violations[0].field == "digests"
    assert words in caught.value.violations[0].description
