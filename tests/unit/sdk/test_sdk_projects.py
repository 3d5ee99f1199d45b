"""Projects: policies, models, runs as handles."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import pytest
from fake_world import World
from rekindle.api.common.v1 import common_pb2 as common
from rekindle.api.scheduler.v1 import records_pb2 as records
from rekindle.api.trainer.v1 import trainer_pb2 as trainer
from rekindle.client import Client
from rekindle.config import HeldOut, Organ, Policy, TrainingWindow
from rekindle.errors import VersionConflict
from rekindle.projects import Project

POLICIES = [
    Policy(sizes=(2, 2, 3), held_out=HeldOut(number=4, schedule="first")),
    Policy(geometric=(4, 1.5), ordering="hard-first", held_out=HeldOut(fraction=0.25), review_required=True),
    Policy(
        sizes=(2,),
        training_window=TrainingWindow(
            start="20:00", end="06:00", time_zone="Europe/Berlin", days=("monday", "sunday")
        ),
        gpu_seconds_budget=7200.0,
    ),
    Policy(
        minutes_per_round=45.0, preset="paper", recipe="paper", seed=3, largest_component=False, detached_lease_days=2
    ),
]


@pytest.mark.parametrize("policy", POLICIES, ids=["sizes", "geometric", "limits", "minutes"])
def test_policy_survives_the_wire(client: Client, policy: Policy) -> None:
    """What was set is what the project shows, beside the scheduler's defaults for the rest."""
    shown = asdict(client.create_project("p", [], policy=policy).policy)
    assert _given(asdict(policy)) == _given(shown, like=asdict(policy))


def test_only_what_was_given_of_a_policy_is_sent(client: Client, world: World) -> None:
    """The rest is unset, so that the scheduler's defaults hold, whatever they are."""
    client.create_project("p", [], policy=Policy(seed=7, held_out=HeldOut(number=3)))
    (request,) = world.requests("CreateProject")
    training = records.TrainingPolicy(seed=7, window=common.TrainingWindow(), gpu_seconds_budget=0.0)
    assert records.Policy(held_out=records.HeldOutPolicy(number=3), training=training) == request.policy


def test_shown_policy_can_be_sent_back(client: Client, project: Project) -> None:
    """A policy that the scheduler answered, with one rule replaced, changes this rule alone."""
    before = project.policy
    assert replace(before, margin_dice=0.0) == project.update_policy(replace(before, margin_dice=0.0)).policy


def test_organs_survive_the_wire(client: Client) -> None:
    """Values and coded concepts come back."""
    organs = (Organ("liver", 1, ("SCT", "10200004", "Liver")), Organ("spleen", 2))
    assert organs == client.project(client.create_project("p", organs).id).organs


def test_stale_policy_is_refused(client: Client, project: Project) -> None:
    """Two people who change the policy at once do not overwrite each other unseen."""
    other = client.project(project.id)
    project.update_policy(Policy(sizes=[2]))
    with pytest.raises(VersionConflict):
        other.update_policy(Policy(sizes=[5]))
    assert (2,) == other.refresh().policy.sizes


def test_registration_again_answers_the_same_cases(project: Project, world: World) -> None:
    """Registering volumes twice makes no second case; group keys arrive."""
    volumes = [(project.upload_image(name.encode()), f"patient {name}") for name in "ab"]
    first = project.register_cases(volumes)
    assert first == project.register_cases(volumes)
    assert ["patient a", "patient b"] == [case.group_key for case in project.cases()]


def test_seed_case_again_is_the_same_one(project: Project, world: World) -> None:
    """Adding the same files twice is one seed case."""
    first = project.add_seed_case(b"scan", b"label", modality="MR")
    assert first == project.add_seed_case(b"scan", b"label", modality="MR")
    assert [first] == [seed.seed_case_id for seed in project.seed_cases()]


def test_imported_model_arrives_whole(project: Project, world: World) -> None:
    """Manifest and ONNX file arrive, and the version is registered by the package's digest."""
    onnx = bytes(range(256)) * 8192
    model = project.import_model(b"{}", onnx, role="sustainer")
    assert onnx == world.onnx
    assert ("sustainer", hashlib.sha256(b"{}").hexdigest()) == (model.role, model.package_digest)


def test_activation_is_compare_and_set(project: Project) -> None:
    """Activation names the version believed to serve, and fails when another one does."""
    first, second = (project.import_model(b"{}", onnx) for onnx in (b"1", b"2"))
    assert first.activate(expected_current="").active
    assert second.activate(expected_current=first.id).active
    with pytest.raises(VersionConflict):
        first.activate(expected_current="")
    assert second.id == project.model().id


def test_run_watch_ends_with_the_run(project: Project, world: World) -> None:
    """Metrics come in order; the handle then knows the end."""
    spec = trainer.RunSpec(kind=trainer.RUN_KIND_SUSTAINER)
    dice = trainer.OrganMetrics(organ_id="liver", dice=0.8)
    worse = trainer.OrganMetrics(organ_id="liver", dice=0.6)
    undefined = trainer.OrganMetrics(organ_id="spleen")
    result = trainer.RunResult(
        candidate=[trainer.CaseMetrics(organs=[dice, undefined]), trainer.CaseMetrics(organs=[worse])]
    )
    world.runs["r"] = trainer.Run(run_id="r", project_id=project.id, spec=spec, state=2)
    world.metrics = [trainer.Metric(cursor=n, step=n, steps=2) for n in (1, 2)]
    run = project.run("r")
    world.runs["r"] = trainer.Run(run_id="r", project_id=project.id, spec=spec, state=4, result=result)
    assert [1, 2] == [metric.step for metric in run.watch()]
    assert ("sustainer", "succeeded") == (run.kind, run.state)
    assert {"liver": pytest.approx(0.7)} == run.held_out_dice()


def _given(policy: Mapping[str, Any], like: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What is not None in a policy, or not None in the one that it is to be `like`."""
    pattern = policy if like is None else like
    return {
        name: _given(policy[name], value) if isinstance(value, Mapping) else policy[name]
        for name, value in pattern.items()
        if value is not None
    }
